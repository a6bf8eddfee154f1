// What the protocol crate's tests compare their bytes with is what other implementations make.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { applied, deltas, messages } from '../golden.mjs';

for (const [what, file] of Object.entries({ messages, deltas })) {
  test(`the golden ${what} are what another implementation writes`, () => {
    const { committed, expected } = file();
    assert.deepEqual(committed.split('\n'), expected.split('\n'), 'run node golden.mjs');
  });
}

test('another implementation applies the patches of ours', () => {
  const patches = applied();
  assert.ok(patches.length >= 20);
  for (const { made, target } of patches) assert.equal(made, target);
});
