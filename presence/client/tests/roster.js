// What the client promises: who is in the room, from states and diffs.

import { dial, live, state, diff, equal } from './helpers.js';

export const tests = {
  async 'the first state is told by sync alone'() {
    const { room, socket, told } = dial();
    socket.open();
    equal(room.status.state, 'connecting');
    socket.says(state(1, { ann: ['a1', 'me'], bob: ['b1'] }, { anonymous: 2 }));
    equal(told, ['status live', 'count 2+2', 'sync ann bob']);
    equal([room.me, room.anonymous, room.others.map(({ user }) => user)], ['me', 2, ['bob']]);
    equal([...room.get('ann').presences.keys()], ['a1', 'me']);
    equal(room.get('cyd'), undefined);
  },

  async 'a user with many tabs joins with the first, leaves with the last, and is updated between'() {
    const { room, socket, told } = live({ ann: ['me'] });
    socket.says(diff(1, { joins: [['bob', 'b1']] }));
    socket.says(diff(2, { joins: [['bob', 'b2']] }));
    socket.says(diff(3, { leaves: [['bob', 'b1']] }));
    equal([...room.get('bob').presences.keys()], ['b2']);
    socket.says(diff(4, { leaves: [['bob', 'b2']] }));
    equal(told, [
      'join bob', 'count 2+0', 'sync ann bob', 'update bob b1 -> b1,b2', 'sync ann bob',
      'update bob b1,b2 -> b2', 'sync ann bob', 'leave bob', 'count 1+0', 'sync ann',
    ]);
  },

  async 'a new meta is an update with the member as it was, never a leave and a join'() {
    const { room, socket } = live({ ann: ['me'], bob: ['b1'] });
    const seen = [];
    for (const event of ['join', 'leave', 'update']) room.on(event, (now, old) => seen.push([event, now, old]));
    socket.says(diff(1, { updates: [['bob', 'b1', { status: 'busy' }]] }));
    equal(seen.map(([event]) => event), ['update']);
    const [[, now, old]] = seen;
    equal([now.presences.get('b1'), old.presences.get('b1')], [{ status: 'busy' }, {}]);
    equal(now === room.get('bob'), true);
  },

  async 'joins are applied before leaves, so that a user who changes presence does not flicker'() {
    const { room, socket, told } = live({ ann: ['me'], bob: ['b1'] });
    socket.says(diff(1, { leaves: [['bob', 'b1']], joins: [['bob', 'b2', { n: 1 }]] }));
    equal(told, ['update bob b1 -> b2', 'sync ann bob']);
    equal(room.get('bob').presences.get('b2'), { n: 1 });
  },

  async 'join, update and leave of different users in one diff are told in that order'() {
    const { socket, told } = live({ ann: ['me'], bob: ['b1'], cyd: ['c1'] });
    socket.says(diff(1, { leaves: [['bob', 'b1']], updates: [['cyd', 'c1', { n: 1 }]], joins: [['dan', 'd1']] }));
    equal(told, ['join dan', 'update cyd c1 -> c1', 'leave bob', 'sync ann cyd dan']);
  },

  async 'anonymous visitors are a count'() {
    const { room, socket, told } = live({ ann: ['me'] });
    socket.says(diff(1, { anonymous: 3 }));
    equal([room.anonymous, told], [3, ['count 1+3', 'sync ann']]);
  },

  async 'hostile names are ordinary users'() {
    const names = ['__proto__', 'constructor', 'toString', 'hasOwnProperty', '<img src=x onerror=alert(1)>', ' '];
    const { room, socket } = live({ ann: ['me'] });
    names.forEach((name, i) => socket.says(diff(1 + i, { joins: [[name, '__proto__', { __proto__x: 1 }]] })));
    equal([...room.members.keys()], ['ann', ...names]);
    equal(room.get('__proto__').presences.size, 1);
    equal(room.get('valueOf'), undefined);
    names.forEach((name, i) => socket.says(diff(7 + i, { leaves: [[name, '__proto__']] })));
    equal([...room.members.keys()], ['ann']);
    equal({}.x, undefined);
  },

  async 'a meta with hostile keys pollutes nothing'() {
    const { room, socket } = live({ ann: ['me'] });
    socket.says('{"type":"presence.diff","room":"lobby","epoch":"e","from":1,"version":2,"joins":[{"user":"bob","id":'
      + '"b1","meta":{"__proto__":{"polluted":1}}}],"leaves":[],"updates":[],"anonymous":0}');
    equal([{}.polluted, room.get('bob').presences.get('b1').polluted], [undefined, undefined]);
  },

  async 'a diff before the state waits for it, and is used only if it is newer'() {
    const { room, socket, told } = dial();
    socket.open();
    socket.says(diff(3, { joins: [['old', 'o1']] }));
    socket.says(diff(5, { joins: [['bob', 'b1']] }));
    socket.says({ ...diff(6, { joins: [['alien', 'x']] }), epoch: 'another' });
    equal([told, room.members.size], [[], 0]);
    socket.says(state(5, { ann: ['me'] }));
    equal([...room.members.keys()], ['ann', 'bob']);
    equal(room.status.state, 'live');
    socket.says(diff(6, { joins: [['cyd', 'c1']] }));
    equal(room.members.size, 3);
  },

  async 'early diffs are dropped when a listener leaves at the first news'() {
    const { room, browser, socket } = dial();
    socket.open();
    socket.says(diff(5, { joins: [['bob', 'b1']] }));
    room.on('sync', () => room.leave());
    socket.says(state(5, { ann: ['me'] }));
    equal([room.status.state, room.members.size, browser.sockets.length], ['left', 0, 1]);
  },

  async 'a hole between the state and the early diffs is a gap'() {
    const { room, socket } = dial();
    socket.open();
    socket.says(diff(6, { joins: [['bob', 'b1']] }));
    socket.says(diff(7, { joins: [['cyd', 'c1']] }));
    socket.says(state(5, { ann: ['me'] }));
    equal([room.status.state, room.status.why, [...room.members.keys()]], ['reconnecting', 'gap', ['ann']]);
  },

  async 'a second state replaces the first, and only the net difference is told'() {
    const { socket, told } = live({ ann: ['me'], bob: ['b1'], cyd: ['c1'] });
    socket.says(state(1, { ann: ['me'], bob: ['b1'], cyd: ['c1'] }));
    equal(told, ['sync ann bob cyd']);
    socket.says(state(9, { ann: ['me'], cyd: ['c2'], dan: ['d1'] }));
    equal(told.slice(1), ['join dan', 'update cyd c1 -> c2', 'leave bob', 'sync ann cyd dan']);
    socket.says(diff(9, { leaves: [['dan', 'd1']] }));
    equal(told.at(-1), 'sync ann cyd');
  },

  async 'a gap never gives a wrong roster: the room reconnects and says so'() {
    const { room, browser, socket, clock, told } = live({ ann: ['me'], bob: ['b1'] });
    socket.says(diff(2, { joins: [['ghost', 'g1']] }));
    equal(told, ['status reconnecting gap']);
    equal([room.get('ghost'), socket.onmessage], [undefined, null]);
    socket.says(diff(1, { joins: [['late', 'l1']] })); // the old socket is deaf from now on
    clock.pass(500);
    browser.socket.open();
    browser.socket.says(state(4, { ann: ['me2'], bob: ['b1'], cyd: ['c1'] }));
    equal(told.slice(1), ['status reconnecting gap', 'status live', 'join cyd', 'update ann me -> me2', 'count 3+0',
      'sync ann bob cyd']);
  },

  async 'a repeated diff, another epoch and a diff that contradicts itself are gaps too'() {
    const frames = [
      diff(0, { joins: [['bob', 'b1']] }),
      { ...diff(1, { joins: [['bob', 'b1']] }), epoch: 'another' },
      diff(1, { joins: [['bob', 'b1']], leaves: [['bob', 'b1']] }),
    ];
    for (const frame of frames) {
      const { room, socket } = live({ ann: ['me'] });
      socket.says(frame);
      equal([room.status.state, room.status.why, room.members.size], ['reconnecting', 'gap', 1]);
    }
  },

  async 'after a reconnect only the net difference is told, and the roster stands meanwhile'() {
    const { room, browser, socket, clock, told } = live({ ann: ['me'], bob: ['b1'], cyd: ['c1'] });
    socket.drops();
    equal([told, room.members.size], [['status reconnecting lost 1006'], 3]);
    clock.pass(500);
    browser.socket.open();
    browser.socket.says(state(7, { cyd: ['c1'], bob: ['b1'], ann: ['me'] }));
    equal(told.slice(2), ['status live', 'sync ann bob cyd']);
    told.length = 0;
    browser.socket.drops();
    clock.pass(1000);
    browser.socket.open();
    browser.socket.says({ ...state(1, { ann: ['me3'], dan: ['d1'] }), epoch: 'a new life' });
    equal(told.slice(2), ['status live', 'join dan', 'update ann me -> me3', 'leave bob', 'leave cyd', 'count 2+0',
      'sync ann dan']);
  },

  async 'metas are compared by content, not by the order of their keys'() {
    const { socket, told } = live({ ann: ['me'], bob: ['b1'] });
    socket.says(diff(1, { updates: [['bob', 'b1', { a: 1, b: { c: [1, { d: null }] } }]] }));
    told.length = 0;
    const again = state(2, { ann: ['me'], bob: ['b1'] });
    again.members[1].presences[0].meta = { b: { c: [1, { d: null }] }, a: 1 };
    socket.says(again);
    equal(told, ['sync ann bob']);
    again.members[1].presences[0].meta = { b: { c: [1, { d: 0 }] }, a: 1 };
    socket.says(again);
    equal(told.slice(1), ['update bob b1 -> b1', 'sync ann bob']);
  },
};
