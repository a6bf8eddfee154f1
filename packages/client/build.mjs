// Builds the package into dist/, which isn't committed.
//
//   node build.mjs           build: one minified module, and the types
//   node build.mjs --test    run the unit tests in test/ (TAUTLINE_URL says where a server runs)

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import esbuild from 'esbuild';

const here = dirname(fileURLToPath(import.meta.url));

const task = process.argv[2] ?? '--build';
if (task === '--build') await build();
else if (task === '--test') await test();
else {
  console.error(`error: unknown argument ${task}: expected --test, or nothing`);
  process.exitCode = 1;
}

async function build() {
  const output = join(here, 'dist');
  rmSync(output, { recursive: true, force: true });
  await esbuild.build({
    absWorkingDir: here,
    entryPoints: ['src/index.ts'],
    outdir: output,
    bundle: true,
    minify: true,
    format: 'esm',
    // Browsers of the last three years.
    target: ['es2022', 'chrome111', 'firefox113', 'safari16.4'],
    logLevel: 'warning',
  });
  run(join(here, 'node_modules/.bin/tsc'), [
    '--noEmit', 'false', '--declaration', '--emitDeclarationOnly', '--outDir', output,
    '--rootDir', 'src', '--project', 'tsconfig.build.json',
  ]);
  const { readFileSync } = await import('node:fs');
  const bytes = readFileSync(join(output, 'index.js'));
  console.log(`dist/index.js ${bytes.length} B, ${gzipSync(bytes, { level: 9 }).length} B gzip`);
}

/** Runs the tests with Node's own runner. Node reads no TypeScript at this version, so they are bundled first. */
async function test() {
  // Below the package, so that what the tests import from node_modules is found.
  const folder = mkdtempSync(join(here, 'node_modules/.test-'));
  try {
    await esbuild.build({
      absWorkingDir: here,
      entryPoints: readdirSync(join(here, 'test'))
        .filter((name) => name.endsWith('.test.ts'))
        .map((name) => join('test', name)),
      outdir: folder,
      outExtension: { '.js': '.mjs' },
      bundle: true,
      packages: 'external',
      platform: 'node',
      format: 'esm',
      target: 'node20',
      sourcemap: 'inline',
      logLevel: 'warning',
    });
    const files = readdirSync(folder).map((name) => join(folder, name));
    run(process.execPath, ['--enable-source-maps', '--test', ...files]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function run(program, args) {
  const { status } = spawnSync(program, args, { cwd: here, stdio: 'inherit' });
  if (status !== 0) process.exitCode = status ?? 1;
}
