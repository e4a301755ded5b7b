// dockerode as its users write it; prints what it saw as JSON.
const path = require("path");
const { createRequire } = require("module");
const load = createRequire(path.join(process.env.NODE_HOME, "index.js"));
const Docker = load("dockerode");
const tar = load("tar-stream");
const { PassThrough, Writable } = require("stream");

const docker = new Docker({ socketPath: process.env.SOCKET });

function sink() {
  const parts = [];
  const stream = new Writable({ write: (part, _, done) => (parts.push(part), done()) });
  stream.text = () => Buffer.concat(parts).toString();
  return stream;
}

function ended(stream) {
  return new Promise((resolve, reject) => stream.on("end", resolve).on("close", resolve).on("error", reject));
}

async function run() {
  const out = sink(), err = sink();
  const [data, container] = await docker.run(
    "busybox", ["sh", "-c", "echo out; echo err >&2; exit 7"], [out, err], { Tty: false }
  );
  await container.remove();
  return { code: data.StatusCode, out: out.text(), err: err.text() };
}

async function attach() {
  const container = await docker.createContainer({
    Image: "busybox", Cmd: ["cat"], OpenStdin: true, StdinOnce: true, Tty: false, name: "node-cat",
    AttachStdin: true, AttachStdout: true, AttachStderr: true,
  });
  const stream = await container.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true });
  const out = sink();
  container.modem.demuxStream(stream, out, out);
  await container.start();
  const over = ended(stream);
  stream.write("one\n");
  stream.end("two\n");
  await over;
  const { StatusCode } = await container.wait();
  await container.remove();
  return { code: StatusCode, out: out.text() };
}

async function inside(container) {
  const exec = await container.exec({ Cmd: ["sh", "-c", "read x; echo got $x; exit 5"], AttachStdin: true, AttachStdout: true });
  const stream = await exec.start({ hijack: true, stdin: true });
  const out = sink();
  container.modem.demuxStream(stream, out, out);
  const over = ended(stream);
  stream.write("this\n");
  await over;
  const { ExitCode } = await exec.inspect();
  return { code: ExitCode, out: out.text() };
}

async function terminal(container) {
  const exec = await container.exec({ Cmd: ["sh", "-c", "sleep 0.5; stty size"], Tty: true, AttachStdout: true });
  const stream = await exec.start({ Tty: true, hijack: true });
  await exec.resize({ h: 31, w: 99 });
  const out = sink();
  stream.pipe(out);
  await ended(stream);
  return out.text();
}

async function files(container) {
  const pack = tar.pack();
  pack.entry({ name: "note" }, "text");
  pack.finalize();
  await container.putArchive(pack, { path: "/tmp" });
  const extract = tar.extract();
  const found = {};
  extract.on("entry", (header, stream, next) => {
    const out = sink();
    stream.pipe(out).on("finish", () => { found[header.name] = out.text(); next(); });
  });
  (await container.getArchive({ path: "/tmp/note" })).pipe(extract);
  await new Promise((resolve, reject) => extract.on("finish", resolve).on("error", reject));
  return found;
}

async function logs(container) {
  const stream = await container.logs({ follow: true, stdout: true, stderr: true });
  const out = new PassThrough();
  container.modem.demuxStream(stream, out, out);
  const seen = [];
  for await (const part of out) {
    seen.push(...part.toString().split("\n").filter(Boolean));
    if (seen.length >= 3) break;
  }
  stream.destroy();
  return seen.slice(0, 3);
}

async function life() {
  const network = await docker.createNetwork({ Name: "node-net" });
  const volume = await docker.createVolume({ Name: "node-vol" });
  const container = await docker.createContainer({
    Image: "busybox", Cmd: ["sh", "-c", "echo 1; echo 2; echo 3; exec sleep 600"], name: "node-box",
    Labels: { kind: "node" }, HostConfig: { NetworkMode: "node-net", Binds: ["node-vol:/data"], Memory: 64 << 20 },
  });
  await container.start();
  const found = {
    exec: await inside(container),
    terminal: await terminal(container),
    files: await files(container),
    logs: await logs(container),
    listed: (await docker.listContainers({ filters: { label: ["kind=node"] } })).map((each) => each.Names[0]),
    memory: (await container.stats({ stream: false })).memory_stats.limit,
    top: (await container.top()).Processes.length,
    state: (await container.inspect()).State.Status,
  };
  await container.stop({ t: 0 });
  found.code = (await container.wait()).StatusCode;
  await container.remove({ v: true });
  await volume.remove();
  await network.remove();
  found.missing = await docker.getContainer("nosuch").inspect().catch((error) => [error.statusCode, error.json.message]);
  return found;
}

async function events(since) {
  const stream = await docker.getEvents({ since, until: Math.ceil(Date.now() / 1000) + 1, filters: { container: ["node-box"] } });
  const out = sink();
  stream.pipe(out);
  await ended(stream);
  return out.text().split("\n").filter(Boolean).map((line) => JSON.parse(line).Action);
}

async function pulled() {
  const stream = await docker.pull("busybox:latest");
  const lines = await new Promise((resolve, reject) =>
    docker.modem.followProgress(stream, (error, found) => (error ? reject(error) : resolve(found)))
  );
  return lines.at(-1).status;
}

(async () => {
  const since = Math.floor(Date.now() / 1000);
  console.log(JSON.stringify({
    ping: (await docker.ping()).toString(),
    version: (await docker.version()).ApiVersion,
    pulled: await pulled(),
    run: await run(),
    attach: await attach(),
    ...(await life()),
    events: await events(since),
  }));
})().catch((error) => { console.error(error); process.exit(1); });
