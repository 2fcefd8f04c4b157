// What the client promises: the token of a tab.

import { joinRoom } from '../presence.js';
import { fakeBrowser } from './fakes.js';
import { dial, live, state, diff, tokenOf, equal } from './helpers.js';

export const tests = {
  async 'a tab has one token, after a reload too, and sends it whenever it connects'() {
    const memory = new Map();
    const first = dial({}, { memory });
    const token = tokenOf(first.socket);
    equal(/^[\w-]{16,128}$/.test(token), true);
    first.socket.drops();
    first.clock.pass(1000);
    equal([tokenOf(first.browser.socket), first.browser.sockets.length], [token, 2]);
    // A page that is loaded anew is another page with what the tab remembers.
    equal(tokenOf(dial({}, { memory: new Map(memory) }).socket), token);
    equal(first.browser.socket.url, `ws://chat.example/ws/lobby?user=ann&session=${token}`);
    const other = fakeBrowser({ memory: new Map(memory) });
    joinRoom('/ws/attic', { env: other.env });
    equal(tokenOf(other.socket) === token, false);
  },

  async 'two connections of one page have a token each, and one that is closed hands its own on'() {
    const memory = new Map();
    const { browser, room, socket } = dial({}, { memory });
    const join = () => joinRoom({ room: 'lobby', user: 'ann' }, { env: browser.env });
    join();
    const twin = tokenOf(browser.socket);
    equal(twin === tokenOf(socket), false);
    room.close();
    join();
    equal(tokenOf(browser.socket), tokenOf(socket));
  },

  async 'a tab whose token another has comes back with a fresh one, and remembers that'() {
    const memory = new Map();
    const { browser, room, socket, clock } = live({ ann: ['me'] }, {}, { memory });
    socket.drops(4409, 'taken over');
    equal([room.status.state, room.status.code, room.members.size], ['reconnecting', 4409, 1]);
    clock.pass(1000);
    const fresh = tokenOf(browser.socket);
    equal(fresh === tokenOf(socket), false);
    equal([...memory.values()], [fresh]);
    browser.socket.drops();
    clock.pass(2000);
    equal(tokenOf(browser.socket), fresh);
  },

  async 'who says no, has a session of their own or nothing to remember it by is served all the same'() {
    const { env, sockets } = fakeBrowser();
    joinRoom({ room: 'lobby' }, { env, resume: false });
    joinRoom('/ws/lobby?session=my-own-token-0123456789', { env });
    equal(sockets.map(({ url }) => url), [
      'ws://chat.example/ws/lobby', 'ws://chat.example/ws/lobby?session=my-own-token-0123456789',
    ]);
    const throwing = { getItem() { throw new Error('no'); }, setItem() { throw new Error('no'); } };
    for (const storage of [null, throwing, { getItem: () => 'bad token', setItem() {} }]) {
      const browser = fakeBrowser();
      joinRoom({ room: 'lobby' }, { env: { ...browser.env, storage } });
      equal(/session=[0-9a-f]{32}$/.test(browser.socket.url), true);
    }
  },

  async 'a socket that is given up is left open until the next one has its presence'() {
    const { room, browser, socket, clock } = live({ ann: ['me'] });
    socket.says(diff(7, { joins: [['bob', 'b1']] }));
    equal([room.status.why, socket.closedWith], ['gap', null]);
    clock.pass(1000);
    browser.socket.open();
    equal(socket.closedWith, null);
    browser.socket.says(state(9, { ann: ['me'], bob: ['b1'] }));
    equal([socket.closedWith.code, room.members.size], [4300, 2]);
    browser.socket.says(diff(20, {}));
    room.close();
    equal(browser.sockets.map(({ readyState }) => readyState > 1), [true, true]);
  },
};
