import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ropeStretches, type Box, type Hang, type Wave } from '../src/view/rope-shape';

const box: Box = { width: 600, rest: 18, depth: 22, gap: 120 };

/** The points that a rope's bodies go through. */
function points(hang: Hang, waves: readonly Wave[] = []): { x: number; y: number }[] {
  return ropeStretches(box, hang, waves).flatMap(({ body }) =>
    body
      .slice(1)
      .split('L')
      .map((pair) => {
        const [x = NaN, y = NaN] = pair.split(' ').map(Number);
        return { x, y };
      }),
  );
}

test('a taut rope is a straight line from end to end', () => {
  const taut = points({ slack: 0, cut: 0 });
  assert.deepEqual(
    [taut[0], taut.at(-1)],
    [
      { x: 0, y: 18 },
      { x: 600, y: 18 },
    ],
  );
  assert.ok(taut.every(({ y }) => y === 18));
});

test('a slack rope hangs, with its ends tied', () => {
  const slack = points({ slack: 1, cut: 0 });
  assert.equal(Math.max(...slack.map(({ y }) => y)), 40);
  assert.deepEqual([slack[0]?.y, slack.at(-1)?.y], [18, 18]);
});

test('a cut leaves a gap in the middle, and frays', () => {
  const cut = points({ slack: 0, cut: 1 });
  assert.ok(cut.every(({ x }) => x <= 240 || x >= 360));
  assert.ok(ropeStretches(box, { slack: 0, cut: 1 }, []).every(({ fray }) => fray !== ''));
  assert.equal(ropeStretches(box, { slack: 0, cut: 0 }, [])[0]?.fray, '');
});

test('a wave lifts the rope where it is, and not at the ends', () => {
  const waved = points({ slack: 0, cut: 0 }, [{ at: 0.5, height: 9 }]);
  const top = waved.reduce((a, b) => (b.y < a.y ? b : a));
  assert.ok(Math.abs(top.x - 300) <= 5 && Math.abs(top.y - 9) < 0.5);
  assert.deepEqual([waved[0]?.y, waved.at(-1)?.y], [18, 18]);
});

test('no box is too small, nor a gap too wide, to be drawn', () => {
  for (const width of [0, 1, 7, 60]) {
    for (const cut of [0, 0.5, 1]) {
      const drawn = ropeStretches({ ...box, width }, { slack: 0.3, cut }, [{ at: 0.2, height: 9 }]);
      assert.ok(
        drawn.every(({ body, lay, fray }) => !/NaN|Infinity/.test(body + lay + fray)),
        `${width} ${cut}`,
      );
    }
  }
});
