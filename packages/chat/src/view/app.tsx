// The page as a whole.

import { useEffect, useRef, useState } from 'preact/hooks';
import type { Identity } from '../model/identity';
import type { Line } from '../model/line';
import type { Room } from '../model/room';
import { Composer } from './composer';
import { Close, Hitch, Persons } from './icons';
import { LineStrip } from './line';
import { Messages } from './messages';
import { Side } from './side';

export function App({ line, me }: { line: Line; me: Identity }) {
  const room = line.room.value;
  if (room === null) return null;
  return (
    <div class="page">
      <Panel line={line} room={room} me={me} />
      <main class="talk">
        <LineStrip line={line} room={room} />
        <Trouble line={line} room={room} />
        <Messages room={room} me={me} />
        <Composer room={room} up={room.state.value.kind === 'joined'} />
      </main>
      <Title room={room} />
    </div>
  );
}

/**
 * The head of the page and the side panel. Where there is no room beside the talk, a button opens
 * the panel over it.
 */
function Panel({ line, room, me }: { line: Line; room: Room; me: Identity }) {
  const [open, setOpen] = useState(false);
  const toggle = useRef<HTMLButtonElement>(null);
  const close = () => {
    setOpen(false);
    toggle.current?.focus();
  };
  useEffect(() => setOpen(false), [room]);
  useEffect(() => {
    if (!open) return;
    const onKey = (event: KeyboardEvent) => event.key === 'Escape' && close();
    document.addEventListener('keydown', onKey);
    return () => document.removeEventListener('keydown', onKey);
  }, [open]);

  const here = room.people.value?.length ?? null;
  return (
    <>
      <header class="head">
        <Hitch />
        <h1>
          <span class="brand">Tautline</span>
          <span class="head-room">#{room.name}</span>
        </h1>
        <button
          type="button"
          class="button head-toggle"
          ref={toggle}
          aria-expanded={open}
          aria-controls="side"
          aria-label={
            open
              ? 'Close room and people'
              : `Room and people${here === null ? '' : `, ${here} here`}`
          }
          onClick={() => (open ? close() : setOpen(true))}
        >
          {open ? <Close /> : <Persons />}
          {!open && here !== null && <span class="figure">{here}</span>}
        </button>
      </header>
      {open && <div class="shade" onClick={close} />}
      <aside class="side" id="side" data-open={open}>
        <Side line={line} room={room} me={me} />
        <p class="motto">A line to every user that holds.</p>
      </aside>
    </>
  );
}

/** What keeps the page from working, in words, if anything does. */
function Trouble({ line, room }: { line: Line; room: Room }) {
  const state = line.state.value;
  const refusal = room.state.value;
  if (state.kind === 'closed') {
    return (
      <p class="trouble" role="alert">
        The server ended the connection: {state.reason} (code {state.code}).
      </p>
    );
  }
  if (refusal.kind === 'refused') {
    return (
      <p class="trouble" role="alert">
        The server does not let us into #{room.name}: {refusal.reason} (code {refusal.code}).{' '}
        <a href="#lobby">Back to the lobby</a>
      </p>
    );
  }
  return null;
}

/** Names the room in the tab's title, and counts what came while nobody looked. */
function Title({ room }: { room: Room }) {
  const entries = room.entries.value;
  const seen = useRef(0);
  const messages = entries.reduce(
    (count, entry) => count + (entry.kind === 'message' && !entry.you ? 1 : 0),
    0,
  );
  const show = () => {
    if (!document.hidden || !room.settled.value) seen.current = messages;
    const unread = Math.max(0, messages - seen.current);
    document.title = `${unread > 0 ? `(${unread}) ` : ''}#${room.name} · Tautline`;
  };
  useEffect(() => {
    show();
    document.addEventListener('visibilitychange', show);
    return () => document.removeEventListener('visibilitychange', show);
  });
  return null;
}
