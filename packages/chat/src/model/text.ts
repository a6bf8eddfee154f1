// What people may type and what strangers may send, brought into bounds.

/** Longest message that the page sends, in UTF-16 units (what `maxlength` counts). */
export const MESSAGE_LENGTH = 2000;
/** Longest name, in UTF-16 units. */
export const NAME_LENGTH = 32;
/** Longest room name, in characters; all of them ASCII. */
export const ROOM_LENGTH = 40;
/** What is shown of a message that someone sent past the page, in UTF-16 units. */
const SHOWN_LENGTH = 8000;

/** A message as the page publishes it. Whatever else comes along in a room is shown as data. */
export type Message = {
  /**
   * Chosen by the sender: says that two publications are the same message, sent again after a
   * doubt.
   */
  readonly id: string | null;
  readonly text: string;
  /** When it was written by the sender's clock, Unix milliseconds. */
  readonly at: number | null;
  /** Whether `text` is JSON that is no message of ours. */
  readonly raw: boolean;
};

/**
 * Reads the payload of a publication. It may hold anything: the HTTP API and other clients publish
 * into the same rooms.
 */
export function readMessage(data: unknown): Message {
  if (isRecord(data) && typeof data.text === 'string') {
    return {
      id: typeof data.id === 'string' && data.id.length <= 64 ? data.id : null,
      text: shorten(data.text, SHOWN_LENGTH),
      at: typeof data.at === 'number' && isTime(data.at) ? data.at : null,
      raw: false,
    };
  }
  return { id: null, text: shorten(JSON.stringify(data) ?? '', SHOWN_LENGTH), at: null, raw: true };
}

/**
 * A name as others shall see it, or null if nothing of it is left: one line, no invisible edges,
 * bounded.
 */
export function readName(input: unknown): string | null {
  if (typeof input !== 'string') return null;
  // Control characters, and those which turn the direction of what comes after the name.
  const name = input
    .slice(0, 4 * NAME_LENGTH)
    .replace(/[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]+/gu, ' ')
    .replace(/\s+/g, ' ')
    .trim();
  return name === '' ? null : shorten(name, NAME_LENGTH);
}

/**
 * The room that somebody means who typed `input`, as a channel name: lower case ASCII letters,
 * digits and single hyphens, at most `ROOM_LENGTH`. Null if nothing usable is in it. Channel names
 * give a meaning to `:`, `#` and `$`; none of them gets through.
 */
export function readRoom(input: string): string | null {
  const room = input
    .slice(0, 4 * ROOM_LENGTH)
    .normalize('NFKD')
    .replace(/\p{M}/gu, '')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-/, '')
    .slice(0, ROOM_LENGTH)
    .replace(/-$/, '');
  return room === '' ? null : room;
}

/** 128 random bits as text. (`crypto.randomUUID` is for pages with TLS or on loopback only.) */
export function randomId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** At most `length` units of `text`, and never half a surrogate pair. */
export function shorten(text: string, length: number): string {
  if (text.length <= length) return text;
  const end = /[\ud800-\udbff]/.test(text.charAt(length - 2)) ? length - 2 : length - 1;
  return text.slice(0, end) + '…';
}

function isTime(at: number): boolean {
  return Number.isFinite(new Date(at).getTime());
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
