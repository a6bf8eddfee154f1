// What the tests share: our end, as a server that runs and as a client for one scene.
//
//   INTEROP_PEER   the built program `interop-peer`
//
// All of it: `cargo xtask test interop`.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

/** Patience with a busy machine, in milliseconds; nothing here takes long. */
export const DEADLINE = 20_000;

export const COMPRESSIONS = ['plain', 'deflate', 'alone', 'narrow'];

/** Those that take HTTP/2 as well. */
const HTTP2 = ['http2', 'http2-tls'];

const program = process.env.INTEROP_PEER;
if (!program) {
  throw new Error(
    'INTEROP_PEER is not set: build it with `cargo build --package interop-peer` and set it to ' +
      'target/debug/interop-peer, or let `cargo xtask test interop` do both',
  );
}

/**
 * Starts our servers, one for each form of compression and two for HTTP/2; `stop` ends them. Called from `before`:
 * addresses are there when it resolves.
 */
export async function ourServers() {
  const child = spawn(program, ['serve'], { stdio: ['pipe', 'pipe', 'ignore'] });
  const failed = new Promise((_, reject) => child.once('error', reject));
  await Promise.race([failed, new Promise((resolve) => child.once('spawn', resolve))]);
  const addresses = {};
  for await (const line of createInterface({ input: child.stdout })) {
    const [name, address] = line.split(' ');
    addresses[name] = `ws://${address}`;
    if (Object.keys(addresses).length === COMPRESSIONS.length + HTTP2.length) break;
  }
  assert.deepEqual(Object.keys(addresses), [...COMPRESSIONS, ...HTTP2], 'our server started');
  return { addresses, stop: () => child.stdin.end() };
}

/** Our client in one scene; what it printed, once it has ended well. */
export async function ourClient(scene, compression, url) {
  const child = spawn(program, [scene, compression, url], {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: DEADLINE,
  });
  let [said, complained] = ['', ''];
  child.stdout.on('data', (data) => (said += data));
  child.stderr.on('data', (data) => (complained += data));
  const [code, signal] = await new Promise((resolve) =>
    child.once('close', (...how) => resolve(how)),
  );
  assert.equal(code, 0, `our client in "${scene}": ${complained}${signal ?? ''}`);
  return said.trimEnd().split('\n');
}

/** Settles like `promise`, or fails with `what` was awaited when that takes too long. */
export function within(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${DEADLINE} ms: ${what}`)), DEADLINE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Where a frame's header changes, and what is long. */
export const LENGTHS = [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 20];

/** Texts of words with characters of all lengths, and bytes that don't compress. */
export function messages() {
  return [...LENGTHS.map(text), ...LENGTHS.map(noise)];
}

const WORDS = ['Grüße', 'κόσμε', '😀', '{"price":', '1024', ' ', '\n', '\u0000', '€', 'a'];

function text(length) {
  const next = random();
  let text = '';
  while (text.length < length) text += WORDS[next() % WORDS.length];
  // Not in the middle of a pair.
  return text.slice(0, length).replace(/[\uD800-\uDBFF]$/, '');
}

function noise(length) {
  const next = random();
  return Buffer.from(Array.from({ length }, next));
}

/** Bytes, always the same. */
function random() {
  let state = 1;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state >>> 24;
  };
}
