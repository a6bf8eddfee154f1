// Builds the page into crates/server/assets/lab, where the server's build finds it. The output is committed, so that
// building the server needs no Node.
//
//   node build.mjs           build
//   node build.mjs --check   fail unless the committed output is what the sources build to
//   node build.mjs --test    run the unit tests in test/
//
// The output is a function of the sources and the lock file alone. Nothing of others is bundled.

import { createHash } from 'node:crypto';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import esbuild from 'esbuild';

const here = dirname(fileURLToPath(import.meta.url));
const output = join(here, '../../crates/server/assets/lab');

const task = process.argv[2] ?? '--build';
if (task === '--build') write(await build());
else if (task === '--check') check(await build());
else if (task === '--test') await test();
else fail(`unknown argument ${task}: expected --check, --test, or nothing`);

/** Everything that the server serves below /lab: a map from path to bytes. */
async function build() {
  const result = await esbuild.build({
    absWorkingDir: here,
    entryPoints: { lab: 'src/main.ts' },
    outdir: 'assets',
    bundle: true,
    write: false,
    minify: true,
    format: 'esm',
    // Browsers of the last three years.
    target: ['es2022', 'chrome111', 'firefox113', 'safari16.4'],
    legalComments: 'none',
    logLevel: 'warning',
  });
  const files = new Map();
  const add = (stem, extension, bytes) => {
    const hash = createHash('sha256').update(bytes).digest('hex').slice(0, 10);
    const path = `assets/${stem}-${hash}.${extension}`;
    files.set(path, Buffer.from(bytes));
    return `/lab/${path}`;
  };
  const of = (extension) => result.outputFiles.find(({ path }) => path.endsWith(extension)).contents;
  const names = {
    script: add('lab', 'js', of('.js')),
    style: add('lab', 'css', of('.css')),
    icon: add('icon', 'svg', readFileSync(join(here, '../chat/src/icon.svg'))),
  };
  const html = readFileSync(join(here, 'src/index.html'), 'utf8').replace(/\{\{(\w+)\}\}/g, (_, name) => names[name]);
  return files.set('index.html', Buffer.from(html));
}

function write(files) {
  rmSync(output, { recursive: true, force: true });
  mkdirSync(join(output, 'assets'), { recursive: true });
  for (const [path, bytes] of files) {
    writeFileSync(join(output, path), bytes);
    const small = gzipSync(bytes, { level: 9 }).length;
    console.log(`${path.padEnd(36)} ${String(bytes.length).padStart(7)} B  ${String(small).padStart(6)} B gzip`);
  }
}

function check(files) {
  const committed = new Map(filesIn(output).map((path) => [path, readFileSync(join(output, path))]));
  const problems = [
    ...[...files]
      .filter(([path, bytes]) => !committed.get(path)?.equals(bytes))
      .map(([path]) => `${path} ${committed.has(path) ? 'differs' : 'is missing'}`),
    ...[...committed.keys()].filter((path) => !files.has(path)).map((path) => `${path} is built from nothing any more`),
  ];
  if (problems.length > 0) {
    fail(
      `the committed page is not what its sources build to:\n  ${problems.join('\n  ')}\nRun \`npm ci && npm run build\` in packages/lab, and commit crates/server/assets/lab.`,
    );
  }
  console.log(`page: ${files.size} files are what their sources build to`);
}

function filesIn(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath ?? entry.path, entry.name)).replaceAll('\\', '/'));
}

/** Runs the tests with Node's own runner. Node reads no TypeScript at this version, so they are bundled first. */
async function test() {
  const folder = mkdtempSync(join(tmpdir(), 'tautline-lab-'));
  try {
    await esbuild.build({
      absWorkingDir: here,
      entryPoints: readdirSync(join(here, 'test'))
        .filter((name) => name.endsWith('.test.ts'))
        .map((name) => join('test', name)),
      outdir: folder,
      outExtension: { '.js': '.mjs' },
      bundle: true,
      platform: 'node',
      format: 'esm',
      target: 'node18',
      sourcemap: 'inline',
      logLevel: 'warning',
    });
    const files = readdirSync(folder).map((name) => join(folder, name));
    const { status } = spawnSync(process.execPath, ['--enable-source-maps', '--test', ...files], { stdio: 'inherit' });
    process.exitCode = status ?? 1;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function fail(message) {
  console.error(`error: ${message}`);
  process.exit(1);
}
