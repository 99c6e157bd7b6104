const os = require("os");
const routes = require("./routes");
const server = require("http").createServer((_, answer) => answer.end("ok"));
server.listen(0, () => {
  console.log(`listening as ${os.userInfo().username} in ${process.env.NODE_ENV}: ${routes.length} routes`);
  server.close();
});
