// What the client promises: several rooms on one connection, and what a server sends of rooms that nobody asked for.

import { connect, joinRoom } from '../presence.js';
import { fakeBrowser } from './fakes.js';
import { connected, diff, equal, listen, live, of, state, throws, turnOver } from './helpers.js';

const stateOf = (room, version, users) => of(room, state(version, users));
const diffOf = (room, from, changes) => of(room, diff(from, changes));
const users = ({ members }) => [...members.keys()];

export const tests = {
  async 'each room of a connection has its own frames, and nothing of another'() {
    const { connection, socket } = connected();
    const [lobby, attic] = [connection.room('lobby'), connection.room('attic')];
    const [atLobby, atAttic] = [listen(lobby), listen(attic)];
    socket.says(stateOf('lobby', 1, { ann: ['a1'] }));
    socket.says(stateOf('attic', 7, { ann: ['a2'], bob: ['b1'] }));
    socket.says(diffOf('attic', 7, { joins: [['cyd', 'c1']] }));
    socket.says(diffOf('lobby', 1, { joins: [['dan', 'd1']] }));
    equal([users(lobby), users(attic), lobby.me, attic.me], [['ann', 'dan'], ['ann', 'bob', 'cyd'], 'a1', 'a2']);
    equal(atLobby, ['status live', 'count 1+0', 'sync ann', 'join dan', 'count 2+0', 'sync ann dan']);
    equal(atAttic.slice(3), ['join cyd', 'count 3+0', 'sync ann bob cyd']);
    equal(connection.room('lobby') === lobby, true);
  },

  async 'frames of another room change nothing in the room of joinRoom'() {
    const { room, browser, socket, told } = live({ ann: ['me'], bob: ['b1'] });
    socket.says(diffOf('attic', 3, { joins: [['cyd', 'c1']] }));
    socket.says(stateOf('attic', 9, { eve: ['e1'] }));
    socket.says(diffOf('attic', 40, { leaves: [['bob', 'b1']] }));
    socket.says({ type: 'presence.state', room: 'attic', members: 'unreadable' });
    equal([told, users(room), room.status.state, browser.sockets.length], [[], ['ann', 'bob'], 'live', 1]);
    socket.says(diff(1, { joins: [['cyd', 'c1']] }));
    equal(users(room), ['ann', 'bob', 'cyd']);
  },

  async 'a room given by name waits for its own state, whatever comes first'() {
    const { env, sockets } = fakeBrowser();
    const room = joinRoom({ room: 'lobby', user: 'ann' }, { env });
    sockets[0].open();
    sockets[0].says(stateOf('attic', 3, { eve: ['e1'] }));
    equal([room.status.state, users(room)], ['connecting', []]);
    sockets[0].says(stateOf('lobby', 1, { ann: ['me'] }));
    equal([room.name, room.status.state, users(room)], ['lobby', 'live', ['ann']]);
  },

  async 'a room that the server never speaks of is named when the time is over'() {
    const { env, sockets, clock } = fakeBrowser();
    const room = joinRoom({ room: 'lobby' }, { env });
    sockets[0].open();
    sockets[0].says(stateOf('attic', 3, { eve: ['e1'] }));
    clock.pass(15000);
    equal([room.status.why, room.status.reason], ['timeout', 'the server speaks of other rooms only: "attic"']);
    // On the next connection only those count that the server speaks of there.
    clock.pass(room.status.delay);
    sockets[1].open();
    sockets[1].says(stateOf('cellar', 3, { eve: ['e1'] }));
    clock.pass(30000); // the second attempt has twice as long
    equal([room.status.why, room.status.reason], ['timeout', 'the server speaks of other rooms only: "cellar"']);
  },

  async 'a room given by a URL is that of the first state, with the diffs that came before it'() {
    const { env, sockets, clock } = fakeBrowser();
    const room = joinRoom('/socket?user=ann', { env });
    equal(room.name, null);
    sockets[0].open();
    sockets[0].says(diffOf('attic', 5, { joins: [['eve', 'e1']] }));
    sockets[0].says(diffOf('lobby', 5, { joins: [['bob', 'b1']] }));
    sockets[0].says(stateOf('lobby', 5, { ann: ['me'] }));
    sockets[0].says(stateOf('attic', 5, { eve: ['e1'] }));
    equal([room.name, users(room)], ['lobby', ['ann', 'bob']]);
    sockets[0].drops();
    clock.pass(room.status.delay);
    sockets[1].open();
    sockets[1].says(stateOf('attic', 5, { eve: ['e1'] }));
    equal([room.name, users(room), room.status.state], ['lobby', ['ann', 'bob'], 'reconnecting']);
  },

  async 'a room that is asked for late has its roster at once, and its listeners are called'() {
    const { connection, socket } = connected();
    const seen = [];
    connection.on('room', (name) => seen.push(name));
    socket.says(diffOf('attic', 3, { joins: [['bob', 'b1']] }));
    socket.says(stateOf('attic', 3, { ann: ['me'] }));
    socket.says(diffOf('attic', 4, { joins: [['cyd', 'c1']] }));
    socket.says(stateOf('attic', 5, { ann: ['me'], bob: ['b1'], cyd: ['c1'] }));
    equal(seen, ['attic']);
    const attic = connection.room('attic');
    const told = listen(attic);
    await turnOver();
    equal(told, ['status live', 'count 3+0', 'sync ann bob cyd']);
    equal([attic.me, attic.status.state], ['me', 'live']);
    socket.says(diffOf('attic', 5, { leaves: [['bob', 'b1']] }));
    equal(users(attic), ['ann', 'cyd']);
  },

  async 'a room that is asked for on a new connection does not have the roster of the lost one'() {
    const { connection, browser, socket, clock } = connected();
    socket.says(stateOf('attic', 1, { eve: ['e1'] }));
    socket.drops();
    clock.pass(connection.status.delay);
    browser.socket.open();
    const attic = connection.room('attic');
    await turnOver();
    equal([users(attic), connection.status.state, attic.status.state], [[], 'live', 'connecting']);
  },

  async 'a gap in a room that nobody asked for does not disturb the others, and is mended when it is asked for'() {
    const { connection, browser, socket, clock } = connected();
    const lobby = connection.room('lobby');
    socket.says(stateOf('lobby', 1, { ann: ['me'] }));
    socket.says(stateOf('attic', 1, { eve: ['e1'] }));
    socket.says(diffOf('attic', 7, { joins: [['bob', 'b1']] }));
    socket.says(diffOf('cellar', 7, { joins: [['bob', 'b1']] }));
    equal([lobby.status.state, connection.status.state, browser.sockets.length], ['live', 'live', 1]);
    const attic = connection.room('attic');
    await turnOver();
    equal([attic.status.why, lobby.status.why], ['gap', 'gap']);
    clock.pass(attic.status.delay);
    browser.socket.open();
    browser.socket.says(stateOf('attic', 8, { eve: ['e1'], bob: ['b1'] }));
    equal([users(attic), attic.status.state, lobby.status.state], [['eve', 'bob'], 'live', 'reconnecting']);
  },

  async 'rooms that nobody asked for are kept up to a hundred, and one that was forgotten is still had when asked for'() {
    const { connection, browser, socket } = connected();
    for (let i = 0; i <= 100; i += 1) socket.says(stateOf(`room-${i}`, 1, { ann: ['me'] }));
    const last = connection.room('room-100');
    await turnOver();
    equal([last.status.state, browser.sockets.length], ['live', 1]);
    const first = connection.room('room-0');
    await turnOver();
    browser.clock.pass(first.status.delay);
    browser.socket.open();
    browser.socket.says(stateOf('room-0', 1, { ann: ['me'] }));
    equal([first.status.state, browser.sockets.length], ['live', 2]);
  },

  async 'the commands to the room of the URL are the chat\'s, those to another name their room'() {
    for (const target of ['/ws/lobby?user=ann', { room: 'lobby', user: 'ann' }]) {
      const { connection, socket } = connected(target);
      const [lobby, attic] = [connection.room('lobby'), connection.room('attic')];
      for (const name of ['lobby', 'attic']) socket.says(stateOf(name, 1, { ann: ['me'] }));
      for (const room of [lobby, attic]) {
        room.send('hello');
        room.update({ n: 1 });
        room.leave();
        room.join();
      }
      equal(socket.sent, [
        'hello', '{"type":"update","meta":{"n":1}}', '{"type":"leave"}', '{"type":"join"}',
        '{"type":"message","room":"attic","text":"hello"}', '{"type":"update","room":"attic","meta":{"n":1}}',
        '{"type":"leave","room":"attic"}', '{"type":"join","room":"attic"}',
      ]);
    }
  },

  async 'a text to a named room may be anything, since it is not taken for a command'() {
    const { connection, socket } = connected();
    const attic = connection.room('attic');
    socket.says(stateOf('attic', 1, { ann: ['me'] }));
    attic.send('{"type":"leave"}');
    equal(JSON.parse(socket.sent[0]), { type: 'message', room: 'attic', text: '{"type":"leave"}' });
    throws('too_large', () => attic.send('x'.repeat(65536)));
  },

  async 'a room that was joined by join() is joined again after each reconnect, until it is left'() {
    const { connection, browser, socket, clock } = connected();
    const attic = connection.room('attic');
    equal(socket.sent, []);
    attic.join();
    const again = () => {
      browser.socket.drops();
      clock.pass(connection.status.delay);
      browser.socket.open();
      return browser.socket.sent;
    };
    equal([socket.sent, again()], [['{"type":"join","room":"attic"}'], ['{"type":"join","room":"attic"}']]);
    browser.socket.says(stateOf('attic', 1, { ann: ['me'] }));
    attic.leave();
    equal([again(), attic.status.state], [[], 'left']);
    // A server that joins the room by itself is asked to leave it.
    browser.socket.says(stateOf('attic', 1, { ann: ['me'] }));
    equal([browser.socket.sent, users(attic)], [['{"type":"leave","room":"attic"}'], []]);
  },

  async 'a room that is left or closed leaves the others as they are'() {
    const { connection, browser, socket } = connected();
    const [lobby, attic] = [connection.room('lobby'), connection.room('attic')];
    for (const name of ['lobby', 'attic']) socket.says(stateOf(name, 1, { ann: ['me'] }));
    attic.close();
    equal([attic.status.state, lobby.status.state, connection.status.state], ['closed', 'live', 'live']);
    equal([socket.sent, socket.closedWith], [['{"type":"leave","room":"attic"}'], null]);
    socket.says(diffOf('attic', 1, { joins: [['bob', 'b1']] }));
    socket.says(diffOf('lobby', 1, { joins: [['bob', 'b1']] }));
    equal([users(lobby), users(attic), browser.sockets.length], [['ann', 'bob'], [], 1]);
    attic.join();
    socket.says(stateOf('attic', 5, { ann: ['me'] }));
    equal([attic.status.state, connection.room('attic') === attic], ['live', true]);
  },

  async 'all rooms share what happens to their connection'() {
    const { connection, browser, socket, clock } = connected();
    const rooms = ['lobby', 'attic'].map((name) => connection.room(name));
    const statuses = () => [connection, ...rooms].map(({ status }) => status.state);
    for (const { name } of rooms) socket.says(stateOf(name, 1, { ann: ['me'] }));
    equal(statuses(), ['live', 'live', 'live']);
    socket.drops();
    equal(statuses(), ['reconnecting', 'reconnecting', 'reconnecting']);
    clock.pass(connection.status.delay);
    browser.socket.open();
    browser.socket.says(stateOf('attic', 2, { ann: ['me'] }));
    equal(statuses(), ['live', 'reconnecting', 'live']);
    browser.socket.drops(4003, 'banned');
    equal([...statuses(), rooms[0].status.code], ['closed', 'closed', 'closed', 4003]);
    connection.open();
    equal([...statuses(), browser.sockets.length], ['connecting', 'connecting', 'connecting', 3]);
    connection.close();
    equal([...statuses(), clock.pending], ['closed', 'closed', 'closed', 0]);
  },

  async 'a connection without any room waits for nothing, and carries the application\'s own frames'() {
    const { connection, browser, socket, clock } = connected();
    const heard = [];
    for (const event of ['frame', 'text', 'error']) {
      connection.on(event, (what) => heard.push([event, what.code ?? what]));
    }
    clock.pass(60000);
    equal([connection.status.state, browser.sockets.length], ['live', 1]);
    connection.send('{"type":"enter","room":"attic"}');
    equal(socket.sent, ['{"type":"enter","room":"attic"}']);
    socket.says({ type: 'entered', room: 'attic' });
    socket.says('hello');
    socket.says({ type: 'error', code: 'no_such_room', message: 'x' });
    equal(heard.map(([event]) => event), ['frame', 'text', 'frame', 'error']);
    equal([heard[1][1], heard[3][1]], ['hello', 'no_such_room']);
    socket.drops();
    throws('not_live', () => connection.send('late'));
  },

  async 'messages and errors go to the room that they name'() {
    const { connection, socket } = connected('/ws/lobby');
    const heard = [];
    for (const room of ['lobby', 'attic'].map((name) => connection.room(name))) {
      socket.says(stateOf(room.name, 1, { ann: ['me'] }));
      for (const event of ['message', 'error', 'frame', 'text']) room.on(event, () => heard.push(`${room.name} ${event}`));
    }
    socket.says({ type: 'message', room: 'attic', text: 'x' });
    socket.says({ type: 'message', text: 'x' });
    socket.says({ type: 'error', room: 'attic', code: 'x', message: 'x' });
    socket.says({ type: 'score', room: 'cellar' });
    socket.says('plain');
    equal(heard, ['attic message', 'lobby message', 'attic error', 'lobby text']);
  },

  async 'connect refuses what is no name of a room, and a bad address'() {
    const { env } = fakeBrowser();
    throws('bad_name', () => connect('/ws', { env }).room(''));
    throws('bad_name', () => connect({ room: '' }, { env }));
    throws(undefined, () => connect(() => 'http://', { env }));
  },
};
