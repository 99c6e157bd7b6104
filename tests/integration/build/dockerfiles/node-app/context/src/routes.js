module.exports = ["/", "/health", "/items"];
