// Starts the page: who we are, the line to the server that the page came from, the room that the
// address names.

import { render } from 'preact';
import { Identity, storageOf } from './model/identity';
import { Line } from './model/line';
import { readRoom } from './model/text';
import { App } from './view/app';
import './style/page.css';
import './style/line.css';
import './style/messages.css';
import './style/side.css';

const me = new Identity(
  storageOf(() => sessionStorage),
  storageOf(() => localStorage),
);
const endpoint = new URL('/connection/websocket', location.href);
endpoint.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
endpoint.hash = '';
const line = new Line(endpoint.href, me);

const go = () => {
  let asked = location.hash.slice(1);
  try {
    asked = decodeURIComponent(asked);
  } catch {
    // Not what this page wrote; read it as it stands.
  }
  const name = readRoom(asked) ?? 'lobby';
  // The address says what is shown, also where it was typed in another spelling.
  if (location.hash !== `#${name}`) history.replaceState(null, '', `#${name}`);
  line.enter(name);
};
addEventListener('hashchange', go);
go();

addEventListener('beforeunload', (event) => {
  if (line.unsent) event.preventDefault();
});

const root = document.getElementById('app');
if (root !== null) render(<App line={line} me={me} />, root);
