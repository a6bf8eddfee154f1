// What is counted of one way, and how it is told.

/** How many of the last latencies count. Enough for a percentile of 99. */
const KEPT = 1000;

export class Tally {
  heard = 0;
  requests = 0;
  sent = 0;
  received = 0;
  /** Messages that came twice, or not in their order. */
  faults = 0;
  #last = 0;
  readonly #latencies: number[] = [];

  /** Message number `n`, so many milliseconds after it was published. */
  hear(n: number, latency: number): void {
    if (n !== this.#last + 1) this.faults += 1;
    this.#last = n;
    this.#latencies[this.heard % KEPT] = latency;
    this.heard += 1;
  }

  get last(): number {
    return this.#last;
  }

  /** What so many percent of the last thousand did not exceed; undefined while there is none. */
  percentile(percent: number): number | undefined {
    const sorted = [...this.#latencies].sort((a, b) => a - b);
    return sorted[Math.max(Math.ceil((sorted.length * percent) / 100) - 1, 0)];
  }

  get bytesPerMessage(): number | undefined {
    return this.heard === 0 ? undefined : Math.round((this.sent + this.received) / this.heard);
  }
}

/** Milliseconds, in three digits or so. */
export function time(ms: number | undefined): string {
  if (ms === undefined) return '–';
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return `${(ms / 1000).toFixed(2)} s`;
}

/** Time of a processor, which is microseconds: less than nothing is the noise of what it is the difference of. */
export function work(us: number): string {
  return us < 1 ? '< 1 µs' : `${Math.round(us)} µs`;
}

export function size(bytes: number | undefined): string {
  if (bytes === undefined) return '–';
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 1000 * 1024) return `${(bytes / 1024).toFixed(1)} KiB`;
  return `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}

/** Where a latency is on the axis: 0 for a tenth of a millisecond, 1 for ten seconds. */
export function place(ms: number): number {
  return Math.min(Math.max((Math.log10(Math.max(ms, 0.1)) + 1) / 5, 0), 1);
}

/** Bytes of a WebSocket message of the server's: its header (RFC 6455 section 5.2) and its payload. */
export function frame(payload: number): number {
  return payload + (payload < 126 ? 2 : payload < 65_536 ? 4 : 10);
}

/** Bytes of a part of a body that goes on (RFC 9112 section 7.1): its length in hex, and two line ends. */
export function chunk(payload: number): number {
  return payload + payload.toString(16).length + 4;
}

/** Bytes of an answer's head, as it was written in HTTP/1.1. */
export function answerHead(response: { status: number; statusText: string; headers: Iterable<[string, string]> }): number {
  let bytes = `HTTP/1.1 ${response.status} ${response.statusText}\r\n\r\n`.length;
  for (const [name, value] of response.headers) bytes += name.length + value.length + 4;
  return bytes;
}
