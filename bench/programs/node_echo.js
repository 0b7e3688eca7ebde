// The echo on Node's http. Usage: node node_echo.js PORT
"use strict";

const http = require("node:http");
const querystring = require("node:querystring");

const server = http.createServer((request, response) => {
  const mark = request.url.indexOf("?");
  const name = (mark < 0 ? undefined : querystring.parse(request.url.slice(mark + 1)).name) || "Nomad";
  const body = `Hi, ${name}!`;
  response.writeHead(200, {
    "Content-Type": "text/plain; charset=utf-8",
    "Content-Length": Buffer.byteLength(body),
  });
  response.end(body);
});
server.keepAliveTimeout = 75_000; // as 80s; the default of 5 s would close the idle connections being counted
server.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 4096 });
