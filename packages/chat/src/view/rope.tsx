// The rope across the page: draws `rope-shape.ts`, and moves it.

import { useEffect, useLayoutEffect, useRef } from 'preact/hooks';
import { ropeStretches, type Box } from './rope-shape';

export type RopeState = 'taut' | 'slack' | 'cut';
/** A message that ran along the line: `key` changes with each, `out` says which way. */
export type Pulse = { readonly key: string; readonly out: boolean } | null;

const HEIGHT = 48;
/** Height of the rope at rest, from the top of its box: in the middle of what is tied to it. */
const REST = 18;
const DEPTH = 22;
/** Time that a message takes from end to end, in milliseconds. */
const TRAVEL = 650;

const HANG = { taut: { slack: 0, cut: 0 }, slack: { slack: 1, cut: 0 }, cut: { slack: 0, cut: 1 } };

export function Rope({ state, pulse, gap }: { state: RopeState; pulse: Pulse; gap: number }) {
  const svg = useRef<SVGSVGElement>(null);
  const rope = useRef<Animation | null>(null);
  const seen = useRef(pulse?.key);

  useLayoutEffect(() => {
    const element = svg.current;
    if (element === null) return;
    const animation = new Animation(element, state);
    rope.current = animation;
    const observer = new ResizeObserver(() => animation.resize());
    observer.observe(element);
    return () => {
      observer.disconnect();
      animation.stop();
    };
  }, []);
  useEffect(() => rope.current?.go(state, gap), [state, gap]);
  useEffect(() => {
    if (pulse !== null && pulse.key !== seen.current) rope.current?.send(pulse.out);
    seen.current = pulse?.key;
  }, [pulse?.key]);

  return (
    <svg ref={svg} class="rope" height={HEIGHT} aria-hidden="true" focusable="false">
      {[0, 1].map((half) => (
        <g key={half}>
          <path class="rope-fray" />
          <path class="rope-body" />
          <path class="rope-lay" />
        </g>
      ))}
    </svg>
  );
}

/** Draws the rope frame by frame while it moves, and not at all while it rests. */
class Animation {
  readonly #halves: SVGPathElement[][];
  readonly #calm = matchMedia('(prefers-reduced-motion: reduce)');
  #frame = 0;
  #last = 0;
  #state: RopeState;
  #gap = 0;
  #slack: Spring;
  #cut: Spring;
  #waves: { start: number; out: boolean }[] = [];

  constructor(
    private readonly svg: SVGSVGElement,
    state: RopeState,
  ) {
    this.#halves = [...svg.querySelectorAll('g')].map((half) => [...half.querySelectorAll('path')]);
    this.#state = state;
    this.#slack = new Spring(HANG[state].slack);
    this.#cut = new Spring(HANG[state].cut);
  }

  go(state: RopeState, gap: number): void {
    this.#state = state;
    this.#gap = gap;
    this.#wake();
  }

  send(out: boolean): void {
    if (this.#calm.matches || this.#state !== 'taut' || this.#waves.length >= 6) return;
    this.#waves.push({ start: performance.now(), out });
    this.#wake();
  }

  resize(): void {
    this.#draw(performance.now());
  }

  stop(): void {
    cancelAnimationFrame(this.#frame);
  }

  #wake(): void {
    if (this.#frame !== 0) return;
    this.#last = performance.now();
    this.#frame = requestAnimationFrame((now) => this.#step(now));
  }

  #step(now: number): void {
    // A page that was hidden must not catch up on its swinging.
    const time = Math.min(Math.max(now - this.#last, 0), 50) / 1000;
    this.#last = now;
    const target = HANG[this.#state];
    const calm = this.#calm.matches;
    const moving = [
      this.#slack.step(target.slack, time, calm),
      this.#cut.step(target.cut, time, calm),
    ].includes(true);
    this.#waves = this.#waves.filter(({ start }) => now - start < TRAVEL);
    this.#draw(now);
    this.#frame =
      moving || this.#waves.length > 0 ? requestAnimationFrame((next) => this.#step(next)) : 0;
  }

  #draw(now: number): void {
    const box: Box = { width: this.svg.clientWidth, rest: REST, depth: DEPTH, gap: this.#gap };
    const waves = this.#waves.map(({ start, out }) => {
      const way = Math.min(Math.max((now - start) / TRAVEL, 0), 1);
      return { at: out ? way : 1 - way, height: 9 };
    });
    const stretches = ropeStretches(
      box,
      { slack: this.#slack.value, cut: Math.max(0, this.#cut.value) },
      waves,
    );
    this.#halves.forEach(([fray, body, lay], i) => {
      fray?.setAttribute('d', stretches[i]?.fray ?? '');
      body?.setAttribute('d', stretches[i]?.body ?? '');
      lay?.setAttribute('d', stretches[i]?.lay ?? '');
    });
  }
}

/** A damped spring. */
class Spring {
  #speed = 0;

  constructor(public value: number) {}

  /**
   * Moves on by `time` seconds; at once to the target if `calm`. Returns whether it still moves.
   */
  step(target: number, time: number, calm: boolean): boolean {
    if (calm) {
      this.value = target;
      this.#speed = 0;
      return false;
    }
    // Small steps: the spring is stiff.
    for (let rest = time; rest > 0; rest -= 0.008) {
      const step = Math.min(rest, 0.008);
      this.#speed += (170 * (target - this.value) - 17 * this.#speed) * step;
      this.value += this.#speed * step;
    }
    if (Math.abs(target - this.value) > 0.002 || Math.abs(this.#speed) > 0.02) return true;
    this.value = target;
    this.#speed = 0;
    return false;
  }
}
