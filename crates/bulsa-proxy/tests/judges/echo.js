// A WebSocket server of `ws`: says its port, echoes; closes on "close CODE REASON"; on "drip" sends one message in
// fragments without an end.
const { WebSocketServer, WebSocket } = require('ws');
const server = new WebSocketServer({
  host: '127.0.0.1', port: 0, maxPayload: 64 << 20, perMessageDeflate: { threshold: 0 },
});
server.on('listening', () => console.log(server.address().port));
server.on('connection', (socket) => {
  socket.on('message', (data, binary) => {
    const text = binary ? '' : data.toString();
    const close = text.match(/^close (\d+) (.*)$/);
    if (close) {
      socket.close(Number(close[1]), close[2]);
    } else if (text === 'drip') {
      const timer = setInterval(() => {
        if (socket.readyState !== WebSocket.OPEN) return clearInterval(timer);
        socket.send(`${Math.random()}`.repeat(200), { fin: false });
      }, 3);
    } else {
      socket.send(data, { binary });
    }
  });
  socket.on('error', (error) => console.log(`error ${error.message}`));
  socket.on('close', (code, reason) => console.log(`closed ${code} ${reason}`));
});
