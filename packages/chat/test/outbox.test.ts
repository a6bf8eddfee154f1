import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Outbox, WAITING, type Attempt, type Outgoing } from '../src/model/outbox';

/** An outbox whose attempts are answered by the test, one after the other. */
function scripted() {
  const attempts: { message: Outgoing; answer: (attempt: Attempt) => void }[] = [];
  const outbox = new Outbox(
    (message) => new Promise((answer) => attempts.push({ message, answer })),
  );
  return {
    outbox,
    /** Ids in the order in which they went out. */
    sent: () => attempts.map(({ message }) => message.id),
    async answer(attempt: Attempt) {
      attempts.at(-1)?.answer(attempt);
      await settled();
    },
  };
}

/** Lets everything run that only waits for promises. */
function settled(): Promise<void> {
  return new Promise((done) => setImmediate(done));
}

function states(outbox: Outbox): string[] {
  return outbox.messages.value.map(({ id, state }) => `${id} ${state}`);
}

test('messages wait for the line, and leave one after the other', async () => {
  const { outbox, sent, answer } = scripted();
  outbox.add('a', 'A', 0);
  outbox.add('b', 'B', 0);
  assert.deepEqual(sent(), []);
  outbox.open();
  assert.deepEqual(states(outbox), ['a sending', 'b waiting']);
  await answer({ kind: 'accepted' });
  assert.deepEqual(sent(), ['a', 'b']);
  assert.deepEqual(states(outbox), ['a accepted', 'b sending']);
  assert.equal(outbox.unsent, true);
  outbox.settle('a');
  outbox.settle('b');
  await answer({ kind: 'accepted' });
  assert.deepEqual(states(outbox), []);
  assert.equal(outbox.unsent, false);
});

test('what the recovery gave back is not sent again', async () => {
  const { outbox, sent, answer } = scripted();
  outbox.open();
  outbox.add('a', 'A', 0);
  outbox.close();
  await answer({ kind: 'unknown' });
  assert.deepEqual(states(outbox), ['a waiting']);
  outbox.settle('a');
  outbox.open();
  await settled();
  assert.deepEqual(sent(), ['a']);
});

test('what the recovery did not give back goes out again, under its id and before what came later', async () => {
  const { outbox, sent, answer } = scripted();
  outbox.open();
  outbox.add('a', 'A', 0);
  outbox.close();
  outbox.add('b', 'B', 0);
  await answer({ kind: 'unknown' });
  outbox.open();
  await answer({ kind: 'accepted' });
  assert.deepEqual(sent(), ['a', 'a', 'b']);
});

test('a refusal is told, and the person decides', async () => {
  const { outbox, sent, answer } = scripted();
  outbox.open();
  outbox.add('a', 'A', 0);
  outbox.add('b', 'B', 0);
  await answer({ kind: 'refused', reason: 'permission denied' });
  assert.equal(outbox.messages.value[0]?.reason, 'permission denied');
  await answer({ kind: 'accepted' });
  assert.deepEqual(states(outbox), ['a failed', 'b accepted']);
  outbox.retry('a');
  await answer({ kind: 'refused', reason: 'permission denied' });
  assert.deepEqual(sent(), ['a', 'b', 'a']);
  outbox.discard('b');
  outbox.discard('a');
  assert.deepEqual(states(outbox), ['b accepted']);
});

test('a server that never answers is not asked forever', async () => {
  const { outbox, sent, answer } = scripted();
  outbox.open();
  outbox.add('a', 'A', 0);
  for (let i = 0; i < 3; i++) await answer({ kind: 'unknown' });
  assert.deepEqual(sent(), ['a', 'a', 'a']);
  assert.deepEqual(states(outbox), ['a failed']);
});

test('only so many messages wait', () => {
  const { outbox } = scripted();
  for (let i = 0; i < WAITING; i++) assert.equal(outbox.add(`${i}`, '', 0), true);
  assert.equal(outbox.add('one too many', '', 0), false);
  assert.equal(outbox.messages.value.length, WAITING);
});
