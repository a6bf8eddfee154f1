// What the package weighs in a page, as its README says.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';

test('it is as small as the README says', () => {
  const built = readFileSync('dist/index.js');
  const readme = readFileSync('README.md', 'utf8');
  const [, limit] = /less than ([\d.]+) KiB \(gzip\)/.exec(readme) ?? [];
  const size = gzipSync(built, { level: 9 }).length;
  console.log(`dist/index.js: ${built.length} B, ${size} B gzip`);
  assert.ok(size < Number(limit) * 1024, `${size} B, the README says less than ${limit} KiB`);
  assert.ok(size > (Number(limit) - 1) * 1024, 'the README is too modest');
  assert.doesNotMatch(built.toString(), /\bimport\b *[{"'*(]/, 'it imports nothing');
});
