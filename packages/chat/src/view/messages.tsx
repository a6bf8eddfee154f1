// The room's timeline: messages along a rope, and knots in it for what happened to the line.

import type { ComponentChildren } from 'preact';
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import type { Identity } from '../model/identity';
import type { Outgoing } from '../model/outbox';
import type { Author } from '../model/people';
import type { Room } from '../model/room';
import type { Entry, Note } from '../model/timeline';
import { counted, formatDuration, formatTime, listed } from './format';
import { Down, Hitch } from './icons';

/** Messages of one person within this time (milliseconds) share a heading. */
const TOGETHER = 5 * 60 * 1000;
/** Distance from the end, in pixels, within which a reader is taken to be at the end. */
const NEAR = 48;

export function Messages({ room, me }: { room: Room; me: Identity }) {
  const entries = room.entries.value;
  const outgoing = room.outbox.messages.value;
  const { scroller, unread, toEnd } = useStickToEnd(room, entries, outgoing);
  const rows = rowsOf(entries);
  const last = rows.at(-1);
  const empty =
    room.settled.value && outgoing.length === 0 && !entries.some(({ kind }) => kind === 'message');

  return (
    <div class="messages">
      <div
        class="scroller"
        ref={scroller}
        tabIndex={0}
        role="log"
        aria-live="polite"
        aria-relevant="additions"
        aria-label={`Messages in ${room.name}`}
        data-testid="log"
      >
        {empty && <Empty room={room} />}
        <ol class="rail">
          {rows.map(({ entry, follows, down }) =>
            entry.kind === 'note' ? (
              <NoteRow key={entry.key} note={entry.note} down={down} />
            ) : (
              <MessageRow
                key={entry.key}
                author={entry.author}
                you={entry.you}
                at={entry.at}
                follows={follows}
                down={down}
                recovered={entry.recovered}
                state="sent"
              >
                <Text text={entry.message.text} raw={entry.message.raw} />
              </MessageRow>
            ),
          )}
          {outgoing.map((message, i) => (
            <OutgoingRow
              key={`${me.author.key} ${message.id}`}
              room={room}
              me={me}
              message={message}
              follows={i > 0 || follows(last, me)}
              down={isDown(last)}
            />
          ))}
        </ol>
      </div>
      {unread > 0 && (
        <button type="button" class="pill" onClick={toEnd}>
          <Down /> {counted(unread, 'new message', 'new messages')}
        </button>
      )}
    </div>
  );
}

type Row = { readonly entry: Entry; readonly follows: boolean; readonly down: boolean };

/**
 * What depends on the entry before: whether a message needs a heading of its own, and whether the
 * line was down at that point.
 */
function rowsOf(entries: readonly Entry[]): Row[] {
  let down = false;
  return entries.map((entry, i) => {
    if (entry.kind === 'note' && entry.note.kind === 'down') down = true;
    if (
      entry.kind === 'note' &&
      (entry.note.kind === 'recovered' || entry.note.kind === 'unrecovered')
    )
      down = false;
    const before = entries[i - 1];
    const follows =
      entry.kind === 'message' &&
      before?.kind === 'message' &&
      before.author?.key === entry.author?.key &&
      before.author?.name === entry.author?.name &&
      entry.at - before.at < TOGETHER;
    return { entry, follows, down };
  });
}

function isDown(last: Row | undefined): boolean {
  return last?.down ?? false;
}

function follows(last: Row | undefined, me: Identity): boolean {
  return (
    last?.entry.kind === 'message' &&
    last.entry.author?.key === me.author.key &&
    last.entry.author.name === me.name.value
  );
}

type MessageProps = {
  author: Author | null;
  you: boolean;
  at: number;
  follows: boolean;
  down: boolean;
  recovered: boolean;
  state: 'sent' | Outgoing['state'];
  children: ComponentChildren;
};

function MessageRow({ author, you, at, follows, down, recovered, state, children }: MessageProps) {
  const name = author?.name ?? 'HTTP API';
  return (
    <li
      class="row message"
      data-testid="message"
      data-follows={follows}
      data-you={you}
      data-down={down}
      data-recovered={recovered}
      data-state={state}
    >
      {follows ? <span class="knot-small" /> : <Avatar author={author} />}
      <div class="message-body">
        <p class={follows ? 'heading visually-hidden' : 'heading'}>
          <span class="name" data-hue={author?.hue}>
            {name}
          </span>
          {you && <span class="tag">you</span>}
          {author === null && <span class="tag">server</span>}
          <time dateTime={new Date(at).toISOString()}>{formatTime(at, Date.now())}</time>
        </p>
        {children}
      </div>
    </li>
  );
}

function OutgoingRow({
  room,
  me,
  message,
  follows,
  down,
}: {
  room: Room;
  me: Identity;
  message: Outgoing;
  follows: boolean;
  down: boolean;
}) {
  const { id, text, at, state, reason } = message;
  return (
    <MessageRow
      author={me.author}
      you
      at={at}
      follows={follows}
      down={down}
      recovered={false}
      state={state}
    >
      <Text text={text} raw={false} />
      {state === 'waiting' && <p class="fate">waiting for the line</p>}
      {state === 'failed' && (
        <p class="fate fate-failed">
          Not sent: {reason}.
          <button type="button" class="link" onClick={() => room.outbox.retry(id)}>
            Try again
          </button>
          <button type="button" class="link" onClick={() => room.outbox.discard(id)}>
            Discard
          </button>
        </p>
      )}
    </MessageRow>
  );
}

function Text({ text, raw }: { text: string; raw: boolean }) {
  // `auto`: each paragraph runs in the direction of its own script.
  return (
    <p class={raw ? 'text text-raw' : 'text'} dir="auto" data-testid="text">
      {text}
    </p>
  );
}

export function Avatar({ author }: { author: Author | null }) {
  return (
    <span class="avatar" data-hue={author?.hue} aria-hidden="true">
      {author === null ? '›_' : ([...author.name][0] ?? '?').toUpperCase()}
    </span>
  );
}

function NoteRow({ note, down }: { note: Note; down: boolean }) {
  return (
    <li class="row note" data-testid="note" data-kind={note.kind} data-down={down}>
      <span class="knot" />
      <p>{noteText(note)}</p>
    </li>
  );
}

function noteText(note: Note): ComponentChildren {
  switch (note.kind) {
    case 'joined':
      return `${crowd(note)} joined`;
    case 'returned':
      return `${crowd(note)} ${note.who.length + note.more > 1 ? 'are' : 'is'} back`;
    case 'left':
      return `${crowd(note)} left`;
    case 'renamed':
      return `${note.from} is now called ${note.who.name}`;
    case 'down':
      return 'The line broke';
    case 'recovered':
      return (
        <>
          Line back after {formatDuration(note.away)}.{' '}
          <strong>
            {note.count === 0
              ? 'Nothing was missed.'
              : `${counted(note.count, 'missed message', 'missed messages')} recovered, none lost.`}
          </strong>
        </>
      );
    case 'unrecovered':
      return `Line back after ${formatDuration(note.away)}, but the server no longer knows all that was said meanwhile. What it knows is below.`;
    case 'gap':
      return `${counted(note.missing, 'message is', 'messages are')} missing here.`;
    case 'restarted':
      return 'The server began a new stream: what stands above is known to this page only.';
  }
}

function crowd({ who, more }: { who: readonly Author[]; more: number }): string {
  const names = who.map(({ name }) => name);
  return listed(more > 0 ? [...names, counted(more, 'other', 'others')] : names);
}

function Empty({ room }: { room: Room }) {
  return (
    <div class="empty">
      <Hitch />
      <h2>Nobody has said anything in #{room.name} yet</h2>
      <p>
        Say something. Then{' '}
        <a href={`#${room.name}`} target="_blank" rel="noopener">
          open this page in a second tab
        </a>
        : each tab is somebody else, and you can talk to yourself.
      </p>
    </div>
  );
}

/**
 * Keeps the end in view for a reader who is there, and leaves one who reads further up in peace.
 * Counts what came meanwhile.
 */
function useStickToEnd(room: Room, entries: readonly Entry[], outgoing: readonly Outgoing[]) {
  const scroller = useRef<HTMLDivElement>(null);
  const atEnd = useRef(true);
  const [unread, setUnread] = useState(0);
  const known = useRef({ room, messages: 0, outgoing: 0 });

  const toEnd = () => {
    const element = scroller.current;
    if (element !== null) element.scrollTop = element.scrollHeight;
    atEnd.current = true;
    setUnread(0);
  };

  useEffect(() => {
    const element = scroller.current;
    if (element === null) return;
    const onScroll = () => {
      atEnd.current = element.scrollHeight - element.scrollTop - element.clientHeight < NEAR;
      if (atEnd.current) setUnread(0);
    };
    // The box also changes with the window, the keyboard of a phone, and a composer that grows.
    const observer = new ResizeObserver(() => {
      if (atEnd.current) element.scrollTop = element.scrollHeight;
    });
    element.addEventListener('scroll', onScroll, { passive: true });
    observer.observe(element);
    return () => {
      element.removeEventListener('scroll', onScroll);
      observer.disconnect();
    };
  }, []);

  useLayoutEffect(() => {
    const messages = entries.reduce(
      (count, entry) => count + (entry.kind === 'message' && !entry.you ? 1 : 0),
      0,
    );
    const before = known.current;
    known.current = { room, messages, outgoing: outgoing.length };
    const said = outgoing.length > before.outgoing;
    if (before.room !== room || said || atEnd.current) {
      toEnd();
    } else if (messages > before.messages) {
      setUnread((count) => count + messages - before.messages);
    }
  }, [room, entries, outgoing]);

  return { scroller, unread, toEnd };
}
