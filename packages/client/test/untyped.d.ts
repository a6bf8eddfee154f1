declare module 'y-websocket/bin/utils';
