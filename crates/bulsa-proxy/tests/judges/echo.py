"""A WebSocket server of `websockets`: says its port, echoes; closes on "close CODE REASON"; on "drip" sends one message
in fragments without an end."""
import asyncio
import random

import websockets


async def drip():
    while True:
        yield f"{random.random()}" * 200
        await asyncio.sleep(0.003)


async def serve(socket, *_):
    try:
        async for message in socket:
            words = message.split(" ", 2) if isinstance(message, str) else [""]
            if words[0] == "close":
                await socket.close(int(words[1]), words[2])
            elif message == "drip":
                await socket.send(drip())
            else:
                await socket.send(message)
    except (websockets.ConnectionClosed, websockets.InvalidState):
        pass
    finally:
        # Who is told in the midst of a message goes on before the code is known.
        await socket.wait_closed()
        print(f"closed {socket.close_code} {socket.close_reason}", flush=True)


async def main():
    async with websockets.serve(serve, "127.0.0.1", 0, max_size=64 << 20) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()


asyncio.run(main())
