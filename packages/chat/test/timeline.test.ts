import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Author } from '../src/model/people';
import { KEPT, Timeline, type Post } from '../src/model/timeline';

const ada: Author = { key: 'user ada', name: 'Ada', hue: 0 };
const bo: Author = { key: 'user bo', name: 'Bo', hue: 1 };

function post(
  offset: number | null,
  text = `#${offset}`,
  id: string | null = null,
  author: Author | null = ada,
): Post {
  return { message: { id, text, at: null, raw: false }, author, you: false, offset };
}

/** The timeline as one word a line: texts of messages, kinds of notes. */
function shown(timeline: Timeline): string[] {
  return timeline.entries.map((entry) => {
    if (entry.kind === 'message') return entry.message.text;
    return 'missing' in entry.note ? `gap ${entry.note.missing}` : entry.note.kind;
  });
}

test('history and live messages overlap, and each is shown once, in order', () => {
  const timeline = new Timeline();
  timeline.start('e', 3, 0);
  timeline.add(post(4), 0);
  timeline.add(post(5), 0);
  timeline.addHistory([post(2), post(3), post(4)], 'e', 4, 0);
  timeline.add(post(5), 0);
  timeline.add(post(6), 0);
  assert.deepEqual(shown(timeline), ['#2', '#3', '#4', '#5', '#6']);
});

test('what was recovered follows what was seen, is marked, and leaves no gap', () => {
  const timeline = new Timeline();
  timeline.start('e', 0, 0);
  timeline.add(post(1), 0);
  timeline.start('e', 1, 0);
  timeline.add(post(2), 0, true);
  timeline.add(post(3), 0, true);
  timeline.add(post(4), 0);
  assert.deepEqual(shown(timeline), ['#1', '#2', '#3', '#4']);
  assert.deepEqual(
    timeline.entries.map((entry) => entry.kind === 'message' && entry.recovered),
    [false, true, true, false],
  );
  assert.equal(timeline.top, 4);
});

test('an offset that is left out is said to be missing', () => {
  const timeline = new Timeline();
  timeline.start('e', 0, 0);
  timeline.add(post(1), 0);
  timeline.add(post(4), 0);
  assert.deepEqual(shown(timeline), ['#1', 'gap 2', '#4']);
});

test('history after a failed recovery closes the hole as far as it goes', () => {
  const timeline = new Timeline();
  timeline.start('e', 0, 0);
  timeline.add(post(1), 0);
  timeline.note({ kind: 'unrecovered', away: 1 }, 0);
  timeline.start('e', 9, 0);
  timeline.addHistory([post(8), post(9)], 'e', 9, 0);
  timeline.add(post(10), 0);
  assert.deepEqual(shown(timeline), ['#1', 'unrecovered', 'gap 6', '#8', '#9', '#10']);
});

test('history which is gone altogether leaves a gap of its length', () => {
  const timeline = new Timeline();
  timeline.start('e', 1, 0);
  timeline.addHistory([], 'e', 4, 0);
  assert.deepEqual(shown(timeline), ['gap 3']);
});

test('a new epoch is another stream: the same offsets are other messages', () => {
  const timeline = new Timeline();
  timeline.start('e', 0, 0);
  timeline.add(post(1, 'old'), 0);
  timeline.start('f', 2, 0);
  timeline.addHistory([post(1, 'new 1'), post(2, 'new 2')], 'f', 2, 0);
  assert.deepEqual(shown(timeline), ['old', 'restarted', 'new 1', 'new 2']);
});

test('history of another epoch than the subscription has is not mixed in', () => {
  const timeline = new Timeline();
  timeline.start('e', 0, 0);
  timeline.addHistory([post(1)], 'f', 1, 0);
  assert.deepEqual(shown(timeline), []);
});

test('a message sent twice under one id is shown once, but the id is only its author’s', () => {
  const timeline = new Timeline();
  timeline.start('e', 0, 0);
  assert.equal(timeline.add(post(1, 'first', 'x'), 0), true);
  assert.equal(timeline.add(post(2, 'again', 'x'), 0), false);
  assert.equal(timeline.add(post(3, 'other', 'x', bo), 0), true);
  assert.equal(timeline.add(post(4, 'api', 'x', null), 0), true);
  assert.deepEqual(shown(timeline), ['first', 'other', 'api']);
});

test('without offsets, messages stand as they come', () => {
  const timeline = new Timeline();
  timeline.add(post(null, 'a'), 0);
  timeline.add(post(null, 'a'), 0);
  assert.deepEqual(shown(timeline), ['a', 'a']);
});

test('people who come together share a note, which names three', () => {
  const timeline = new Timeline();
  for (const name of ['a', 'b', 'c', 'd', 'e', 'a']) {
    timeline.note({ kind: 'joined', who: [{ key: name, name, hue: 0 }], more: 0 }, 0);
  }
  timeline.note({ kind: 'left', who: [ada], more: 0 }, 0);
  const [joined] = timeline.entries;
  assert.deepEqual(shown(timeline), ['joined', 'left']);
  assert.ok(joined?.kind === 'note' && joined.note.kind === 'joined');
  assert.deepEqual(
    joined.note.who.map(({ name }) => name),
    ['a', 'b', 'c'],
  );
  assert.equal(joined.note.more, 2);
});

test('only so many entries are kept, and the oldest go', () => {
  const timeline = new Timeline();
  timeline.start('e', 0, 0);
  for (let offset = 1; offset <= KEPT + 10; offset++) timeline.add(post(offset), 0);
  assert.equal(timeline.entries.length, KEPT);
  assert.equal(shown(timeline)[0], '#11');
});

test('keys of entries are unique', () => {
  const timeline = new Timeline();
  timeline.start('e', 0, 0);
  for (let i = 1; i <= 5; i++) {
    timeline.add(post(i), 0);
    timeline.add(post(null), 0);
    timeline.note({ kind: 'down' }, 0);
  }
  assert.equal(new Set(timeline.entries.map(({ key }) => key)).size, 15);
});
