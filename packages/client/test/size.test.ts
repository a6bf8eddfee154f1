// What the package weighs in a page, as its README and docs/client.md say.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import esbuild from 'esbuild';

const KIB = 1024;
const weigh = (bytes: Uint8Array) => gzipSync(bytes, { level: 9 }).length;

test('it is as small as the README says', () => {
  const built = readFileSync('dist/index.js');
  const readme = readFileSync('README.md', 'utf8');
  const [, limit] = /less than ([\d.]+) KiB \(gzip/.exec(readme) ?? [];
  const size = weigh(built);
  console.log(`dist/index.js: ${built.length} B, ${size} B gzip`);
  assert.ok(size < Number(limit) * KIB, `${size} B, the README says less than ${limit} KiB`);
  assert.ok(size > (Number(limit) - 1) * KIB, 'the README is too modest');
  assert.doesNotMatch(built.toString(), /\bimport\b *[{"'*(]/, 'it imports nothing');
});

test('each part weighs what docs/client.md says', async () => {
  const docs = readFileSync('../../docs/client.md', 'utf8');
  for (const name of ['TautlineSocket', 'createClient', 'SharedClient', 'leadTabs', '*']) {
    const row = name === '*' ? 'all of it' : `\`${name}\``;
    const [, told] = new RegExp(`^\\| ${row} \\| ([\\d.]+) \\|$`, 'm').exec(docs) ?? [];
    const contents = name === '*' ? 'export * from "./dist/index.js"' : `export { ${name} } from "./dist/index.js"`;
    const built = await esbuild.build({
      stdin: { contents, resolveDir: process.cwd() },
      bundle: true,
      minify: true,
      format: 'esm',
      write: false,
      treeShaking: true,
    });
    const size = weigh(built.outputFiles[0]!.contents) / KIB;
    console.log(`${row}: ${size.toFixed(2)} KiB`);
    assert.ok(Math.abs(size - Number(told)) < 0.1, `${row} weighs ${size.toFixed(1)} KiB, docs/client.md says ${told}`);
  }
});
