// A client of the npm package `centrifuge` with the whole ladder: WebSocket, HTTP streaming, SSE, and
// long-polling as the last rung.

import type { Centrifuge, Options, TransportEndpoint } from 'centrifuge';
import { Memory, localStore, type Store } from './memory';
import { TautlineSocket, type SocketOptions } from './socket';

/** Those of `centrifuge` (token, getToken, data …), and what the ladder has. */
export type LadderOptions = Partial<Options> & {
  /** `Centrifuge` is that of `centrifuge/build/protobuf`: SSE, which carries text alone, is left out. */
  protobuf?: boolean;
  /** How the first and the last rung are carried. */
  socket?: Omit<SocketOptions, 'replace'>;
};

type Rung = 'websocket' | 'http_stream' | 'sse' | 'poll';

/**
 * A client which isn't connected yet. `Centrifuge` is the class of that package; `url` is where the server is,
 * such as `https://example.com`, with a path in front of its doors if there is one.
 *
 * It falls down the ladder by itself, and starts next time where it got through, until that was half an hour
 * ago. Throws a `TypeError` if the URL is none.
 */
export function createClient(
  Class: new (transports: TransportEndpoint[], options: Partial<Options>) => Centrifuge,
  url: string | URL,
  { protobuf = false, socket: how = {}, ...options }: LadderOptions = {},
): Centrifuge {
  const base = new URL(url, globalThis.location?.href);
  base.protocol = base.protocol.replace('ws', 'http');
  const root = base.origin + base.pathname.replace(/\/$/, '');
  const storage: Store | null = how.storage === undefined ? localStore() : how.storage;
  const memory = new Memory(storage, how.remember ?? REMEMBER);
  const site = `ladder ${root}`;

  // The class itself carries a WebSocket that opens and is silent over long-polling; for one that
  // doesn't open there are better rungs first.
  const Base = TautlineSocket.with({ ...how, replace: false });
  // Which of both rungs a socket is on, only its address tells.
  let last: Rung = 'websocket';
  const Socket = class extends Base {
    constructor(address: string | URL, protocols?: string | string[]) {
      super(address, protocols);
      this.addEventListener('open', () => (last = String(address).endsWith('/poll') ? 'poll' : 'websocket'));
    }
  };

  const rungs: Rung[] = ['websocket', 'http_stream', 'sse', 'poll'];
  const ladder = rungs.filter((rung) => !(protobuf && rung === 'sse'));
  const start = Math.max(0, ladder.indexOf(memory.recall(site) as Rung));
  const transports = [...ladder.slice(start), ...ladder.slice(0, start)].map((rung): TransportEndpoint => {
    const http = `${root}/connection/${rung}`;
    if (rung === 'websocket' || rung === 'poll') {
      return { transport: 'websocket', endpoint: http.replace('http', 'ws') };
    }
    return { transport: rung, endpoint: http };
  });

  const client = new Class(transports, {
    emulationEndpoint: `${root}/emulation`,
    ...options,
    websocket: Socket,
  });
  client.on('connected', ({ transport }) => {
    const rung = transport === 'websocket' ? last : (transport as Rung);
    if (rung === 'websocket') memory.forget(site);
    else memory.keep(site, rung);
  });
  return client;
}

const REMEMBER = 30 * 60 * 1000;
