const fs = require("fs");
const names = fs.readdirSync("modules").sort();
for (const name of names) console.log(fs.readFileSync(`modules/${name}`, "utf8"));
console.log("console.log(`a=${a} b=${b}`);");
