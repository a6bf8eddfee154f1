// Writes what other implementations make of the golden files in crates/protocol/tests/golden, whose
// tests compare ours with it:
//
// - the last column of messages.tsv: each message's bytes, as protobuf.js makes them of its JSON form;
// - the last column of deltas.tsv: the patch that fossil-delta makes.
//
//   npm ci && node golden.mjs

import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { applyDelta, createDelta } from 'fossil-delta';
import protobuf from 'protobufjs';

const FOLDER = new URL('../../../crates/protocol/tests/golden/', import.meta.url);
const MESSAGES = new URL('messages.tsv', FOLDER);
const DELTAS = new URL('deltas.tsv', FOLDER);

/** The committed messages, and what they should be. */
export function messages() {
  const root = protobuf.parse(readFileSync(new URL('client.proto', FOLDER), 'utf8'), { keepCase: true }).root;
  return rewritten(MESSAGES, ([name, type, json]) => {
    const message = root.lookupType(type);
    const bytes = message.encodeDelimited(message.fromObject(plain(message, JSON.parse(json)))).finish();
    return [name, type, json, hex(bytes)];
  });
}

/** The committed patches, and what they should be. */
export function deltas() {
  return rewritten(DELTAS, ([base, target, ours]) => [base, target, ours, hex(createDelta(unhex(base), unhex(target)))]);
}

/** What fossil-delta makes of each of our patches, and what it should. */
export function applied() {
  return rows(DELTAS).map(([base, target, ours]) => ({ made: hex(applyDelta(unhex(base), unhex(ours))), target }));
}

const isRow = (line) => line && !line.startsWith('#');
const rows = (file) => readFileSync(file, 'utf8').split('\n').filter(isRow).map((line) => line.split('\t'));

function rewritten(file, row) {
  const committed = readFileSync(file, 'utf8');
  const lines = committed.split('\n').map((line) => (isRow(line) ? row(line.split('\t')).join('\t') : line));
  return { committed, expected: lines.join('\n') };
}

const hex = (bytes) => Buffer.from(bytes).toString('hex');
const unhex = (digits) => Buffer.from(digits, 'hex');

/** A message in the JSON encoding as protobuf.js wants it: payloads as bytes, defaults left out. */
function plain(type, value) {
  const result = {};
  for (const [key, content] of Object.entries(value)) {
    const field = type.fields[key];
    if (!field) throw new Error(`${type.name} has no field ${key}`);
    field.resolve();
    if (field.map) {
      const entries = Object.entries(content).map(([name, entry]) => [name, scalar(field, entry)]);
      result[key] = Object.fromEntries(entries);
    } else if (field.repeated) {
      result[key] = content.map((entry) => scalar(field, entry));
    } else if (field.resolvedType || field.type === 'bytes' || (content !== '' && content !== 0 && content !== false)) {
      result[key] = scalar(field, content);
    }
  }
  return result;
}

function scalar(field, value) {
  if (field.resolvedType) return plain(field.resolvedType, value);
  return field.type === 'bytes' ? Buffer.from(JSON.stringify(value)) : value;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeFileSync(MESSAGES, messages().expected);
  writeFileSync(DELTAS, deltas().expected);
}
