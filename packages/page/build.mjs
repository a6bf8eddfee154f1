// Builds a page into the server's assets, where the server's build finds it. The output is committed, so that building
// the server needs no Node, and is a function of the sources and the lock file alone: no dates, no paths, names from the
// content.
//
//   node build.mjs           build
//   node build.mjs --watch   build again after each change
//   node build.mjs --check   fail unless the committed output is what the sources build to
//   node build.mjs --test    run the unit tests in test/

import { createHash } from 'node:crypto';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, watch, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join, relative } from 'node:path';
import { gzipSync } from 'node:zlib';

/**
 * Does what the command line asks for.
 *
 * - `folder`: the page's package, `esbuild` the one that it depends on.
 * - `entry`: its script; the style is what that imports. `options` are more for esbuild.
 * - `base`: where its paths begin.
 * - `bundles(inputs, add)`: returns what stands before the script, as a comment, by the files that were bundled.
 */
export async function page({ folder, esbuild, entry, options = {}, base = '', bundles = () => '' }) {
  const name = basename(folder);
  const output = join(folder, '../../crates/server/assets', name);
  const task = process.argv[2] ?? '--build';
  if (task === '--build') write(await build());
  else if (task === '--watch') await rebuild();
  else if (task === '--check') check(await build());
  else if (task === '--test') await test();
  else fail(`unknown argument ${task}: expected --watch, --check, --test, or nothing`);

  /** Everything that the server serves of it: a map from path to bytes. */
  async function build() {
    const result = await esbuild.build({
      absWorkingDir: folder,
      entryPoints: { [name]: entry },
      outdir: 'assets',
      bundle: true,
      write: false,
      metafile: true,
      minify: true,
      format: 'esm',
      // Browsers of the last three years.
      target: ['es2022', 'chrome111', 'firefox113', 'safari16.4'],
      legalComments: 'none',
      logLevel: 'warning',
      ...options,
    });
    const files = new Map();
    const add = (stem, extension, bytes) => {
      const hash = createHash('sha256').update(bytes).digest('hex').slice(0, 10);
      const path = `assets/${stem}-${hash}.${extension}`;
      files.set(path, Buffer.from(bytes));
      return `${base}/${path}`;
    };
    const of = (extension) => result.outputFiles.find(({ path }) => path.endsWith(extension)).contents;
    const note = Buffer.from(bundles(Object.keys(result.metafile.inputs), add));
    const names = {
      script: add(name, 'js', Buffer.concat([note, of('.js')])),
      style: add(name, 'css', of('.css')),
      icon: add('icon', 'svg', readFileSync(new URL('icon.svg', import.meta.url))),
    };
    const html = readFileSync(join(folder, 'src/index.html'), 'utf8').replace(/\{\{(\w+)\}\}/g, (_, name) => names[name]);
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
        `the committed page is not what its sources build to:\n  ${problems.join('\n  ')}\nRun \`npm ci && npm run build\` in packages/${name}, and commit crates/server/assets/${name}.`,
      );
    }
    console.log(`page: ${files.size} files are what their sources build to`);
  }

  async function rebuild() {
    write(await build());
    let timer;
    watch(join(folder, 'src'), { recursive: true }, () => {
      clearTimeout(timer);
      timer = setTimeout(() => build().then(write, () => {}), 50);
    });
  }

  /** Runs the tests with Node's own runner. Node reads no TypeScript at this version, so they are bundled first. */
  async function test() {
    const bundled = mkdtempSync(join(tmpdir(), `tautline-${name}-`));
    try {
      await esbuild.build({
        absWorkingDir: folder,
        entryPoints: readdirSync(join(folder, 'test'))
          .filter((file) => file.endsWith('.test.ts'))
          .map((file) => join('test', file)),
        outdir: bundled,
        outExtension: { '.js': '.mjs' },
        bundle: true,
        platform: 'node',
        format: 'esm',
        target: 'node18',
        sourcemap: 'inline',
        logLevel: 'warning',
      });
      const files = readdirSync(bundled).map((file) => join(bundled, file));
      const { status } = spawnSync(process.execPath, ['--enable-source-maps', '--test', ...files], { stdio: 'inherit' });
      process.exitCode = status ?? 1;
    } finally {
      rmSync(bundled, { recursive: true, force: true });
    }
  }
}

function filesIn(folder) {
  let entries;
  try {
    entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  } catch (error) {
    if (error.code === 'ENOENT') return [];
    throw error;
  }
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath ?? entry.path, entry.name)).replaceAll('\\', '/'));
}

/** Ends with a word why. */
export function fail(message) {
  console.error(`error: ${message}`);
  process.exit(1);
}
