// The line itself: its rope, what state it is in, and the button which cuts it.

import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import type { Line } from '../model/line';
import type { Room } from '../model/room';
import { formatRoundTrip } from './format';
import { Scissors } from './icons';
import { Rope, type Pulse, type RopeState } from './rope';

export function LineStrip({ line, room }: { line: Line; room: Room }) {
  const state = line.state.value;
  const cut = line.cut.value;
  const left = useCountdown(cut?.until ?? null);
  const rope: RopeState =
    cut !== null || state.kind === 'closed' ? 'cut' : state.kind === 'connected' ? 'taut' : 'slack';
  const label = useRef<HTMLDivElement>(null);
  const [gap, setGap] = useState(0);
  const pulse = usePulse(room);
  const words = wordsFor(line);

  useLayoutEffect(() => setGap((label.current?.offsetWidth ?? 0) + 20), [words, rope]);

  return (
    <section class="line" data-state={rope} aria-label="Connection">
      <div class="line-rope">
        <span class="post" aria-hidden="true" />
        <div class="line-span">
          <Rope state={rope} pulse={pulse} gap={gap} />
          <div class="line-label" ref={label}>
            <strong role="status" data-testid="state">
              {words}
            </strong>
            {cut !== null && (
              <span class="figure" data-testid="countdown">
                {Math.ceil(left / 1000)} s
              </span>
            )}
            {state.kind === 'connected' && line.roundTrip.value !== null && (
              <span
                class="figure"
                data-testid="round-trip"
                title="Round trip: a question to the server and its answer"
              >
                {formatRoundTrip(line.roundTrip.value)}
              </span>
            )}
          </div>
        </div>
        <span class="post" aria-hidden="true" />
      </div>
      <Switch line={line} />
    </section>
  );
}

/** The one thing to do about the line as it is. */
function Switch({ line }: { line: Line }) {
  if (line.cut.value !== null) {
    return (
      <button type="button" class="button" aria-label="Splice now" onClick={() => line.splice()}>
        <span>
          Splice<span class="wide"> now</span>
        </span>
      </button>
    );
  }
  if (line.state.value.kind === 'closed') {
    return (
      <button type="button" class="button" aria-label="Connect again" onClick={() => line.dial()}>
        <span>
          Connect<span class="wide"> again</span>
        </span>
      </button>
    );
  }
  return (
    <button
      type="button"
      class="button button-cut"
      aria-label="Cut the line"
      title="Cuts the connection for five seconds"
      disabled={line.state.value.kind !== 'connected'}
      onClick={() => line.sever()}
    >
      <Scissors />
      <span>
        Cut<span class="wide"> the line</span>
      </span>
    </button>
  );
}

function wordsFor(line: Line): string {
  const state = line.state.value;
  if (line.cut.value !== null) return 'line cut';
  switch (state.kind) {
    case 'connected':
      return state.transport === 'websocket' ? 'WebSocket' : state.transport;
    case 'connecting':
      return state.again ? 'reconnecting …' : 'connecting …';
    case 'closed':
      return 'disconnected';
  }
}

/**
 * Milliseconds until `until` (`performance.now()` time), about ten times a second; 0 where nothing
 * is awaited.
 */
function useCountdown(until: number | null): number {
  const [now, setNow] = useState(() => performance.now());
  useEffect(() => {
    if (until === null) return;
    setNow(performance.now());
    const timer = setInterval(() => setNow(performance.now()), 100);
    return () => clearInterval(timer);
  }, [until]);
  return until === null ? 0 : Math.max(0, until - now);
}

/** The newest message that ran along the line while somebody was looking. */
function usePulse(room: Room): Pulse {
  const settled = useRef<Room | null>(null);
  const last = room.entries.value.findLast(({ kind }) => kind === 'message');
  const live = settled.current === room;
  useEffect(() => {
    settled.current = room.settled.value ? room : null;
  });
  return live && last?.kind === 'message' ? { key: last.key, out: last.you } : null;
}
