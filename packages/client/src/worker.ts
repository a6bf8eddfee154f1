// The connection of all tabs in a shared worker. It is a candidate like the tabs, without a page of its own.

import type { Centrifuge, SubscriptionOptions } from 'centrifuge';
import { Election, Lead, type Message } from './lead';

export type WorkerOptions = {
  /** Makes the client of the tabs that said this `identity`; called whenever the worker comes to have the connection. */
  client: (identity: string) => Centrifuge;
  /** Options of a channel's subscription, such as `getToken`. */
  subscription?: (channel: string) => Partial<SubscriptionOptions>;
};

/**
 * For the script of a shared worker, once and at its beginning: has the connection for the tabs that start it by
 * `worker` of `SharedOptions`. Where there are no Web Locks it does nothing, and tabs go on by themselves.
 */
export function leadTabs({ client, subscription }: WorkerOptions): void {
  const scope = globalThis as unknown as Scope;
  const { name } = scope;
  scope.onconnect = ({ ports }) => ports[0]?.postMessage('here');
  const bus = new BroadcastChannel(name);
  // The names of tabs are longer.
  const self = 'worker';
  let lead: Lead | null = null;
  let before: string | null = null;
  const stop = () => {
    lead?.close();
    lead = null;
  };
  const options = { client: () => client(name.slice(name.indexOf(' ') + 1)), subscription };
  const won = () => {
    lead = new Lead(self, name, before, options, (message) => bus.postMessage(message));
    lead.start();
  };
  const election = new Election(name, won, stop);
  bus.onmessage = ({ data }) => {
    const message = data as Message;
    if ('leader' in message && message.kind !== 'call') before = message.leader;
    if (message.kind !== 'logout') return lead?.receive(message);
    stop();
    election.leave();
    bus.close();
    // Whoever logs in next has another worker, also by the same name.
    scope.close();
  };
  if (globalThis.navigator?.locks !== undefined) election.stand();
}

type Scope = {
  name: string;
  onconnect: (event: { ports: readonly MessagePort[] }) => void;
  close: () => void;
};
