import assert from 'node:assert/strict';
import { test } from 'node:test';
import { authorOf, hueOf, HUES, People } from '../src/model/people';

const tab = (client: string, user: string, name?: unknown) => ({
  client,
  user,
  connInfo: { name },
});

function listed(people: People): string[] {
  return people.list().map(({ name, tabs, you }) => `${name} ${tabs}${you ? ' you' : ''}`);
}

test('several tabs of a user are one person, and you come first', () => {
  const people = new People('me');
  people.replace([
    tab('1', 'zoe', 'Zoe'),
    tab('2', 'ada', 'Ada'),
    tab('3', 'zoe', 'Zoe'),
    tab('4', 'me', 'Moe'),
  ]);
  assert.deepEqual(listed(people), ['Moe 1 you', 'Ada 1', 'Zoe 2']);
});

test('coming and going is news for the first and the last tab only', () => {
  const people = new People('me');
  assert.equal(people.join(tab('1', 'ada', 'Ada'))?.name, 'Ada');
  assert.equal(people.join(tab('1', 'ada', 'Ada')), null);
  assert.equal(people.join(tab('2', 'ada', 'Ada')), null);
  assert.equal(people.leave(tab('1', 'ada')), null);
  assert.equal(people.leave(tab('2', 'ada'))?.name, 'Ada');
  assert.equal(people.leave(tab('2', 'ada')), null);
  assert.deepEqual(listed(people), []);
});

test('anonymous connections are people of their own, and nobody else can be taken for one', () => {
  const people = new People('me');
  people.replace([tab('c1', ''), tab('c2', ''), tab('x', 'c1')]);
  assert.equal(people.list().length, 3);
});

test('two people of one name stay two', () => {
  const people = new People('me');
  people.replace([tab('1', 'a', 'Ada'), tab('2', 'b', 'Ada')]);
  assert.deepEqual(listed(people), ['Ada 1', 'Ada 1']);
});

test('a crowd is counted, but not all of it is kept', () => {
  const people = new People('me');
  people.replace(Array.from({ length: 3000 }, (_, i) => tab(`${i}`, `${i}`, `n${i}`)));
  assert.equal(people.list().length, 2000);
  assert.equal(people.matches(3000), true);
  assert.equal(people.matches(1999), false);
});

test('a name comes from the connection’s info, or else from the user, or else is made up', () => {
  assert.equal(authorOf(tab('1', 'u', 'Ada')).name, 'Ada');
  for (const connInfo of [
    undefined,
    null,
    7,
    'Ada',
    [],
    {},
    { name: 7 },
    { name: '' },
    { name: ' \u202e ' },
  ]) {
    assert.equal(authorOf({ client: '12345678', user: 'u', connInfo }).name, 'u');
    assert.equal(authorOf({ client: '12345678', user: '', connInfo }).name, 'guest 1234…');
  }
});

test('colours are within bounds, and spread', () => {
  const hues = new Set(Array.from({ length: 200 }, (_, i) => hueOf(`user ${i}`)));
  assert.equal(hues.size, HUES);
  assert.ok([...hues].every((hue) => Number.isInteger(hue) && hue >= 0 && hue < HUES));
});
