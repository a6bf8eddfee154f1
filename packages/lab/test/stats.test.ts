import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Tally, answerHead, chunk, frame, place, size, time } from '../src/stats';

test('percentiles are what so many did not exceed', () => {
  const tally = new Tally();
  assert.equal(tally.percentile(50), undefined);
  for (let n = 1; n <= 100; n += 1) tally.hear(n, 101 - n);
  assert.deepEqual([50, 99, 100].map((percent) => tally.percentile(percent)), [50, 99, 100]);
  assert.equal(tally.faults, 0);
  // What is old counts no more.
  for (let n = 101; n <= 1100; n += 1) tally.hear(n, 7);
  assert.equal(tally.percentile(99), 7);
});

test('what comes twice or leaves a gap is noticed', () => {
  const tally = new Tally();
  for (const n of [1, 2, 2, 4]) tally.hear(n, 1);
  assert.equal(tally.faults, 2);
});

test('bytes are those of the wire', () => {
  assert.deepEqual([frame(125), frame(126), frame(65_536)], [127, 130, 65_546]);
  assert.equal(chunk(10), '\r\na\r\n'.length - 2 + 10 + 2);
  const response = { status: 200, statusText: 'OK', headers: new Map([['etag', '"a"']]) };
  assert.equal(answerHead(response), 'HTTP/1.1 200 OK\r\netag: "a"\r\n\r\n'.length);
});

test('figures are short', () => {
  assert.deepEqual([time(undefined), time(0.42), time(41.5), time(1234)], ['–', '0.4 ms', '42 ms', '1.23 s']);
  assert.deepEqual([size(999), size(2048), size(3 << 20)], ['999 B', '2.0 KiB', '3.0 MiB']);
  assert.deepEqual([place(0), place(0.1), place(10), place(1e9)], [0, 0, 0.4, 1]);
});
