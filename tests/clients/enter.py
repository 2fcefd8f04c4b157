"""Enters a room as a client that knows nothing of parts: `enter.py websockets|keepalive|aiohttp URL`.

Writes "entered" once its state is complete, reads on, when the user `last` has come writes who is here, as JSON, and stays. The
library is used with its default settings, but for `keepalive`: that is websockets with pings that must be answered soon.
"""

import asyncio
import json
import sys


class Roster:
    def __init__(self):
        self.users, self.version, self.is_whole, self.left = {}, None, False, 0

    def take(self, text):
        frame = json.loads(text)
        if frame["type"] == "presence.state":
            self.users = {member["user"]: {one["id"] for one in member["presences"]} for member in frame["members"]}
        elif frame["type"] == "presence.diff":
            assert frame["from"] == self.version, "a step is missing"
            for entry in frame["joins"] + frame["updates"]:
                self.users.setdefault(entry["user"], set()).add(entry["id"])
            for entry in frame["leaves"]:
                self.users[entry["user"]].remove(entry["id"])
                self.left += 1
                if not self.users[entry["user"]]:
                    del self.users[entry["user"]]
        else:
            return
        self.version = frame["version"]
        # Only to know when to write "entered".
        self.is_whole = not frame.get("more")


async def follow(texts):
    roster, entered, told, largest = Roster(), False, False, 0
    async for text in texts:
        largest = max(largest, len(text.encode()))
        roster.take(text)
        if roster.is_whole and not entered:
            entered = True
            print("entered", flush=True)
        if roster.is_whole and "last" in roster.users and not told:
            told = True
            users = {user: sorted(ids) for user, ids in roster.users.items()}
            print(json.dumps({"users": users, "left": roster.left, "largest": largest}), flush=True)
    raise RuntimeError("the connection ended")


async def of_websockets(url, **options):
    import websockets

    async with websockets.connect(url, **options) as socket:
        await follow(socket)


async def of_keepalive(url):
    await of_websockets(url, ping_interval=1, ping_timeout=5)


async def of_aiohttp(url):
    import aiohttp

    async def texts(socket):
        async for message in socket:
            assert message.type is aiohttp.WSMsgType.TEXT, message
            yield message.data

    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        await follow(texts(socket))


asyncio.run({"websockets": of_websockets, "keepalive": of_keepalive, "aiohttp": of_aiohttp}[sys.argv[1]](sys.argv[2]))
