// What the package gives: a WebSocket that gets through, a client with the whole ladder, and one
// connection for all tabs. It imports nothing.

export { TautlineSocket, type SocketOptions, type Carrier } from './socket';
export { createClient, type LadderOptions } from './ladder';
export { SharedClient, SharedError, type SharedOptions } from './tabs';
export { SharedSubscription } from './subscription';
export { leadTabs, type WorkerOptions } from './worker';
export type { SharedState, Publication, Position } from './lead';
