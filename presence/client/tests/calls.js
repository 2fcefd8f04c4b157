// What the client promises: what a page asks of its room, and what it is told.

import { joinRoom } from '../presence.js';
import { fakeBrowser } from './fakes.js';
import { dial, live, state, diff, metaOf, equal, throws } from './helpers.js';

export const tests = {
  async 'the address is made from room and user, encoded, on the page\'s own host'() {
    const url = (target, location) => {
      const browser = fakeBrowser();
      if (location) browser.env.location = location;
      joinRoom(target, { env: browser.env, resume: false });
      return browser.socket.url;
    };
    equal(url({ room: 'lobby' }), 'ws://chat.example/ws/lobby');
    equal(url({ room: 'a/b c', user: 'ann+bob &?' }), 'ws://chat.example/ws/a%2Fb%20c?user=ann%2Bbob%20%26%3F');
    equal(url({ room: 'lobby', path: '/rooms' }, 'https://x.example/'), 'wss://x.example/rooms/lobby');
    equal(url('wss://far.example/ws/lobby?user=ann'), 'wss://far.example/ws/lobby?user=ann');
    equal(url('/ws/lobby'), 'ws://chat.example/ws/lobby');
  },

  async 'a name that the server would refuse is refused before dialling'() {
    const { env, sockets } = fakeBrowser();
    for (const room of ['', '.', '..', 'a\nb', 'a\u007f', '\u0085', 'é'.repeat(128), '\ud800', undefined, 7, ' ', '\u200b',
      '\u3000\ufeff', '\u2800', 'ann\u202ebob', '\u2066ann', 'a\u200fb']) {
      throws('bad_name', () => joinRoom({ room }, { env }));
    }
    throws('bad_name', () => joinRoom({ room: 'lobby', user: '' }, { env }));
    equal(sockets.length, 0);
    joinRoom({ room: 'x'.repeat(255), user: '😀' }, { env });
    for (const user of ['a ', '👩\u200d👧', '❤\ufe0f', 'שלום']) joinRoom({ room: 'lobby', user }, { env });
    equal(sockets.length, 5);
  },

  async 'the last meta is sent when the room is live, and again after each reconnect and rejoin'() {
    const { room, browser, socket, clock } = dial();
    room.update({ n: 1 });
    room.update({ n: 2 });
    socket.open();
    equal(socket.sent, []);
    socket.says(state(1, { ann: ['me'] }));
    room.update({ n: 3 });
    equal(socket.sent.map(metaOf), [2, 3]);
    socket.drops();
    room.update({ n: 4 });
    clock.pass(500);
    browser.socket.open();
    browser.socket.says(state(5, { ann: ['me2'] }));
    equal(browser.socket.sent.map(metaOf), [4]);
    room.leave();
    room.update({ n: 5 });
    room.join();
    equal(browser.socket.sent.slice(1), ['{"type":"leave"}', '{"type":"join"}']);
    browser.socket.says(state(7, { ann: ['me3'] }));
    equal(metaOf(browser.socket.sent[3]), 5);
  },

  async 'a meta refused while the store is away is sent again'() {
    const { room, socket, clock } = live({ ann: ['me'] });
    room.update({ n: 1 });
    socket.says({ type: 'error', code: 'unavailable', message: 'the store is away' });
    clock.pass(750);
    equal(socket.sent.map(metaOf), [1, 1]);
    clock.pass(60000);
    equal(socket.sent.length, 2);
  },

  async 'a meta that the server would refuse is refused at once'() {
    const { room, socket } = live({ ann: ['me'] });
    for (const meta of [null, [], 'x', 1, undefined, new Date(0)]) throws('bad_meta', () => room.update(meta));
    throws('too_large', () => room.update({ note: 'é'.repeat(2048) }));
    room.update({ note: 'x'.repeat(4096 - '{"note":""}'.length) });
    equal(socket.sent.length, 1);
  },

  async 'leave empties the roster and sticks when the socket is lost'() {
    const { room, browser, socket, clock, told } = live({ ann: ['me'], bob: ['b1'] });
    room.leave();
    equal(told, ['status left', 'count 0+0', 'sync ']);
    equal([socket.sent, room.me, room.members.size], [['{"type":"leave"}'], null, 0]);
    socket.says(diff(1, { joins: [['late', 'l1']] }));
    socket.says({ type: 'message', from: 'bob', text: 'late' });
    socket.drops(1012);
    clock.pass(3600000);
    browser.env.window.dispatchEvent(new Event('online'));
    equal([room.status.state, browser.sockets.length, told.length], ['left', 1, 3]);
    room.join();
    equal([room.status.state, browser.sockets.length], ['connecting', 2]);
  },

  async 'one that the server removed has left, is given the reason, and stays out until join()'() {
    const { room, browser, socket, clock, told } = live({ ann: ['me'], bob: ['b1'] });
    const removed = { type: 'error', code: 'removed', message: 'you were removed from the room' };
    const errors = [];
    room.on('error', ({ code }) => errors.push(code));
    socket.says(removed);
    equal([room.status, errors], [{ state: 'left', reason: removed.message }, ['removed']]);
    equal([socket.sent, room.me, room.members.size, told[0]], [[], null, 0, 'status left']);
    socket.says(diff(1, { joins: [['late', 'l1']] }));
    socket.drops(1012);
    clock.pass(3600000);
    equal([room.status.state, browser.sockets.length], ['left', 1]);
    room.join();
    equal([room.status.state, browser.sockets.length], ['connecting', 2]);
  },

  async 'a removal of an earlier stay does not end the one that join() has asked for'() {
    const { room, socket } = live({ ann: ['me'] });
    room.leave();
    room.join();
    socket.says({ type: 'error', code: 'removed', message: 'x' });
    socket.says(state(4, { ann: ['me2'] }));
    equal([room.status.state, room.me], ['live', 'me2']);
  },

  async 'join after leave uses the open socket, and frames of the earlier stay are harmless'() {
    const { room, browser, socket, told } = live({ ann: ['me'], bob: ['b1'] });
    room.leave();
    room.join();
    equal([room.status.state, browser.sockets.length], ['connecting', 1]);
    socket.says(diff(1, { joins: [['cyd', 'c1']] }));
    equal(room.members.size, 0);
    told.length = 0;
    socket.says(state(4, { bob: ['b1'], cyd: ['c1'], ann: ['me2'] }));
    equal(told, ['status live', 'count 3+0', 'sync bob cyd ann']);
  },

  async 'leave while a reconnect is waiting or under way cancels it'() {
    for (const wait of [0, 500]) {
      const { room, browser, socket, clock } = live({ ann: ['me'] });
      socket.drops();
      clock.pass(wait);
      room.leave();
      clock.pass(3600000);
      equal([room.status.state, browser.sockets.length], ['left', wait ? 2 : 1]);
      equal([browser.socket.readyState > 1, clock.pending], [true, 0]);
    }
  },

  async 'close ends everything: socket, timers, worker and the page\'s events'() {
    const { room, browser, socket, clock, told } = live({ ann: ['me'] });
    room.close();
    room.close();
    equal([told, socket.closedWith.code], [['status closed 1000', 'count 0+0', 'sync '], 1000]);
    browser.env.window.dispatchEvent(new Event('online'));
    browser.env.window.dispatchEvent(Object.assign(new Event('pageshow'), { persisted: true }));
    equal([clock.pending, browser.workers[0].stopped, browser.sockets.length], [0, true, 1]);
    room.join();
    equal(browser.sockets.length, 2);
  },

  async 'a text that the server would obey is refused, and nothing is sent'() {
    const { room, socket } = live({ ann: ['me'] });
    const reserved = ['"heartbeat"', '{"type":"heartbeat"}', ' { "type": "heartbeat" }', '{"type":"leave"}', '{"type":"join"}', '{"type":"update"}',
      ' \n{"type":"leave","x":1}\t', '{"t\\u0079pe":"le\\u0061ve"}', '{"type":"x","type":"leave"}'];
    for (const text of reserved) throws('reserved_text', () => room.send(text));
    equal(socket.sent, []);
  },

  async 'every other text is said as it is'() {
    const { room, socket } = live({ ann: ['me'] });
    const texts = ['hello', '', 'heartbeat', ' "heartbeat"', '{"type":"heartbeat","x":1}', '{"type":"say"}',
      '{"type":["leave"]}', '["leave"]', '"leave"', 'null', '{', '{"a":{"type":"leave"}}', '{type:leave}', '{"__proto__":{"type":"leave"}}'];
    for (const text of texts) room.send(text);
    equal(socket.sent, texts);
  },

  async 'send refuses what cannot arrive, with a reason'() {
    const { room, socket } = dial();
    throws('not_live', () => room.send('early'));
    socket.open();
    throws('not_live', () => room.send('early'));
    socket.says(state(1, { ann: ['me'] }));
    throws('too_large', () => room.send('é'.repeat(32769)));
    throws(undefined, () => room.send({ type: 'leave' }));
    room.send('é'.repeat(32768));
    socket.readyState = 2;
    throws('not_live', () => room.send('late'));
    equal(socket.sent.length, 1);
  },

  async 'messages come with all their fields, also before the sender\'s join'() {
    const { room, socket } = live({ ann: ['me'] });
    const heard = [];
    room.on('message', (message) => heard.push(message));
    const messages = [
      { type: 'message', from: 'bob', text: 'hi', id: 7, reply: { to: 6 } },
      { type: 'message', from: null, text: '{"type":"presence.state"}' },
      { type: 'message', body: 'a shape of the application\'s own' },
    ];
    messages.forEach((message) => socket.says(message));
    equal(heard, messages);
  },

  async 'a frame of the application\'s own, a plain text and a binary frame reach the page as they are'() {
    const { room, socket } = live({ ann: ['me'] });
    const heard = [];
    for (const event of ['frame', 'text', 'binary', 'error']) room.on(event, (what) => heard.push([event, what]));
    socket.says({ type: 'score', points: [1, 2], room: 'lobby' });
    for (const text of ['hello', '', '7', '"x"', 'null', '[]', '{}', '{"type":7}']) socket.says(text);
    socket.onmessage({ data: new ArrayBuffer(8) });
    equal(heard.map(([event]) => event), ['frame', ...Array(8).fill('text'), 'binary']);
    equal(heard[0][1], { type: 'score', points: [1, 2], room: 'lobby' });
    equal(heard[1][1], 'hello');
    equal(heard[9][1].byteLength, 8);
    equal(room.status.state, 'live');
  },

  async 'a listener that throws is reported and stops nobody else'() {
    const { room, browser, socket } = live({ ann: ['me'] });
    const heard = [];
    room.on('join', () => { throw new Error('mine'); });
    const off = room.on('join', ({ user }) => heard.push(user));
    socket.says(diff(1, { joins: [['bob', 'b1']] }));
    off();
    socket.says(diff(2, { joins: [['cyd', 'c1']] }));
    equal([heard, browser.reports.length], [['bob'], 2]);
  },

  async 'a listener may leave, close or rejoin in the middle of the news'() {
    for (const act of [(room) => room.leave(), (room) => room.close(), (room) => { room.leave(); room.join(); }]) {
      const { room, browser, socket } = live({ ann: ['me'] });
      room.on('join', () => act(room));
      socket.says(diff(1, { joins: [['bob', 'b1']] }));
      equal([room.members.size, browser.reports], [0, []]);
    }
  },
};
