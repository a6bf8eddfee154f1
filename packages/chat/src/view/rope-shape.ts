// The shape of the rope which shows the state of the line: taut while it holds, slack while it is
// being tied, two loose ends when it is cut. A message runs along it as a wave.

/** How the rope hangs: both from 0 to 1. */
export type Hang = { readonly slack: number; readonly cut: number };

/** A wave: where it is (0 left end, 1 right end), and its height in pixels. */
export type Wave = { readonly at: number; readonly height: number };

/**
 * The box that the rope is drawn into, in pixels. `gap` is what a cut leaves open around the
 * middle.
 */
export type Box = {
  readonly width: number;
  readonly rest: number;
  readonly depth: number;
  readonly gap: number;
};

/**
 * A stretch of rope as SVG paths: its body, the lay of its strands, and the fray of its loose end.
 */
export type Stretch = { readonly body: string; readonly lay: string; readonly fray: string };

/** The rope, from the left end to the right: one stretch, or the two that a cut leaves. */
export function ropeStretches(box: Box, hang: Hang, waves: readonly Wave[]): Stretch[] {
  if (hang.cut < 0.01)
    return [
      stretch(0, box.width, (x) => box.rest + sag(box, hang, x) + sway(box, waves, x), false),
    ];
  const half = Math.max(1, box.width / 2 - (box.gap / 2) * hang.cut);
  const droop = (x: number) =>
    box.rest + box.depth * hang.cut * (x / half) ** 2.4 + sag(box, hang, x) * (1 - hang.cut);
  return [
    stretch(0, half, droop, true),
    stretch(box.width, box.width - half, (x) => droop(box.width - x), true),
  ];
}

function sag({ width, depth }: Box, { slack }: Hang, x: number): number {
  const u = x / Math.max(1, width);
  return depth * slack * 4 * u * (1 - u);
}

function sway({ width }: Box, waves: readonly Wave[], x: number): number {
  let y = 0;
  for (const { at, height } of waves) {
    const distance = (x - at * width) / 26;
    // The ends are tied: nothing moves there.
    y -=
      height * Math.exp(-distance * distance) * Math.sin(Math.PI * (x / Math.max(1, width))) ** 0.5;
  }
  return y;
}

/** Distance between two strands along the rope, in pixels. */
const STRAND = 5;
/** Half the thickness of the rope, in pixels. */
const HALF = 2.5;

function stretch(from: number, to: number, y: (x: number) => number, loose: boolean): Stretch {
  const steps = Math.max(4, Math.round(Math.abs(to - from) / STRAND));
  const points = Array.from({ length: steps + 1 }, (_, i) => from + ((to - from) * i) / steps).map(
    (x) => ({
      x,
      y: y(x),
    }),
  );
  const ways = points.map((point, i) => direction(points[i - 1] ?? point, points[i + 1] ?? point));
  // The strands lean the same way on both halves, whichever end they are drawn from.
  const lean = to > from ? 1 : -1;
  const strands = points.slice(1, -1).map((point, i) => {
    const { x: dx, y: dy } = ways[i + 1] ?? { x: 1, y: 0 };
    const along = 1.6 * lean;
    return line(
      { x: point.x - dx * along + dy * HALF, y: point.y - dy * along - dx * HALF },
      { x: point.x + dx * along - dy * HALF, y: point.y + dy * along + dx * HALF },
    );
  });
  const end = points.at(-1);
  const way = ways.at(-1);
  return {
    body: 'M' + points.map(text).join('L'),
    lay: strands.join(''),
    fray:
      loose && end !== undefined && way !== undefined
        ? [-0.7, -0.25, 0.2, 0.65]
            .map((turn) => line(end, turned(end, way, turn, 8 - 3 * Math.abs(turn))))
            .join('')
        : '',
  };
}

type Point = { readonly x: number; readonly y: number };

function direction(from: Point, to: Point): Point {
  const length = Math.hypot(to.x - from.x, to.y - from.y) || 1;
  return { x: (to.x - from.x) / length, y: (to.y - from.y) / length };
}

/** The point at `length` from `end`, on from `way` turned by `turn` radians. */
function turned(end: Point, way: Point, turn: number, length: number): Point {
  const [sin, cos] = [Math.sin(turn), Math.cos(turn)];
  return {
    x: end.x + (way.x * cos - way.y * sin) * length,
    y: end.y + (way.x * sin + way.y * cos) * length,
  };
}

function line(from: Point, to: Point): string {
  return `M${text(from)}L${text(to)}`;
}

function text({ x, y }: Point): string {
  return `${x.toFixed(1)} ${y.toFixed(2)}`;
}
