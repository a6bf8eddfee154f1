import assert from 'node:assert/strict';
import { webcrypto } from 'node:crypto';
import { test } from 'node:test';
import { Identity } from '../src/model/identity';
import {
  NAME_LENGTH,
  randomId,
  readMessage,
  readName,
  readRoom,
  ROOM_LENGTH,
  shorten,
} from '../src/model/text';
import { Throttle } from '../src/model/typing';

// Browsers have it; Node has it from version 19 on.
if (globalThis.crypto === undefined) Object.assign(globalThis, { crypto: webcrypto });

test('a room name is ASCII letters, digits and single hyphens, whatever was typed', () => {
  const table: [string, string | null][] = [
    ['lobby', 'lobby'],
    ['  The Lobby! ', 'the-lobby'],
    ['Café Zürich', 'cafe-zurich'],
    ['a--b', 'a-b'],
    ['typing:lobby', 'typing-lobby'],
    ['$secret', 'secret'],
    ['#7,8', '7-8'],
    ['', null],
    ['::', null],
    ['世界', null],
    ['x'.repeat(500), 'x'.repeat(ROOM_LENGTH)],
    [`${'x'.repeat(ROOM_LENGTH - 1)} y`, 'x'.repeat(ROOM_LENGTH - 1)],
  ];
  for (const [input, room] of table) assert.equal(readRoom(input), room, JSON.stringify(input));
});

test('a room name stays itself, so that links hold', () => {
  for (const input of ['a b', 'x'.repeat(60), 'Über--alles-']) {
    const room = readRoom(input);
    assert.equal(readRoom(room ?? ''), room);
  }
});

test('a name is one bounded line without tricks', () => {
  assert.equal(readName('  Ada \n\t Lovelace '), 'Ada Lovelace');
  assert.equal(readName('\u202eadA'), 'adA');
  assert.equal(readName('<b>Ada</b>'), '<b>Ada</b>');
  assert.equal(readName('x'.repeat(1e6))?.length, NAME_LENGTH);
  for (const nothing of ['', '  ', '\u0000\u2066', null, undefined, 7, {}, ['Ada']])
    assert.equal(readName(nothing), null);
});

test('a message is read for what it is, and anything else shown as the JSON it is', () => {
  assert.deepEqual(readMessage({ id: 'x', text: 'hi', at: 5 }), {
    id: 'x',
    text: 'hi',
    at: 5,
    raw: false,
  });
  assert.deepEqual(readMessage({ text: 'hi', id: 'x'.repeat(65), at: 1e99 }), {
    id: null,
    text: 'hi',
    at: null,
    raw: false,
  });
  assert.deepEqual(readMessage({ text: 'hi', id: 7, at: NaN }), {
    id: null,
    text: 'hi',
    at: null,
    raw: false,
  });
  for (const data of [null, 7, 'text', [1, 2], { text: 7 }, {}]) {
    assert.deepEqual(readMessage(data), {
      id: null,
      text: JSON.stringify(data),
      at: null,
      raw: true,
    });
  }
  assert.equal(readMessage(undefined).text, '');
  assert.ok(readMessage({ text: 'x'.repeat(1e6) }).text.length <= 8000);
});

test('shortening keeps characters whole', () => {
  assert.equal(shorten('abc', 3), 'abc');
  assert.equal(shorten('abcd', 3), 'ab…');
  assert.equal(shorten('a😀bc', 3), 'a…');
});

test('ids differ', () => {
  assert.match(randomId(), /^[0-9a-f]{32}$/);
  assert.notEqual(randomId(), randomId());
});

test('a tab is somebody, stays so, and remembers a chosen name for the next one', () => {
  const [tab, visits] = [new Memory(), new Memory()];
  const me = new Identity(tab, visits, () => 0);
  assert.equal(me.name.value, 'Albatross');
  assert.equal(me.rename('  Ada '), true);
  assert.equal(me.rename('Ada'), false);
  assert.equal(me.rename(' '), false);
  const reloaded = new Identity(tab, visits);
  assert.deepEqual([reloaded.user, reloaded.name.value], [me.user, 'Ada']);
  const second = new Identity(new Memory(), visits);
  assert.equal(second.name.value, 'Ada');
  assert.notEqual(second.user, me.user);
});

test('a browser that stores nothing is no obstacle', () => {
  const full = new Memory();
  full.setItem = () => {
    throw new Error('quota');
  };
  assert.equal(new Identity(full, null, () => 0.999999).rename('Ada'), true);
});

test('a throttle lets through one call in a while', () => {
  const throttle = new Throttle(100);
  assert.deepEqual(
    [5, 50, 104, 105, 150].map((now) => throttle.ready(now)),
    [true, false, false, true, false],
  );
  throttle.reset();
  assert.equal(throttle.ready(151), true);
});

class Memory implements Storage {
  readonly #items = new Map<string, string>();
  get length(): number {
    return this.#items.size;
  }
  clear(): void {
    this.#items.clear();
  }
  getItem(key: string): string | null {
    return this.#items.get(key) ?? null;
  }
  key(): string | null {
    return null;
  }
  removeItem(key: string): void {
    this.#items.delete(key);
  }
  setItem(key: string, value: string): void {
    this.#items.set(key, value);
  }
}
