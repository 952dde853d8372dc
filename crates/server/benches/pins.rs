//! Throughput of pins whose content is already local: `cargo bench -p pinfold-server --bench pins [-- CLIENTS]`.
//!
//! Starts the server on loopback, uploads files in folders, and then pins each file by its CID over HTTP with 64
//! concurrent clients, each on its own connection: first for one account (the blocks are local, the pin and its
//! placement are new), then for a second one (the placement exists, the pin is new). Every response is `201` and
//! durable. The clients run on the same machine as the server.

use std::error::Error;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use cid::Version;
use pinfold_node::Block;
use reqwest::multipart::{Form, Part};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const PINFOLD: &str = env!("CARGO_BIN_EXE_pinfold");
const FOLDERS: usize = 10;
const FILES: usize = 5_000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Outcome<()> {
    let clients = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    let clients = clients.map_or(Ok(64), |text| text.parse())?;
    let _already = rustls::crypto::ring::default_provider().install_default();
    let server = Server::start().await?;
    for folder in 0..FOLDERS {
        server.upload(folder).await?;
    }
    let cids: Vec<String> = (0..FOLDERS * FILES).map(cid_of).collect::<Outcome<_>>()?;
    let cids = Arc::new(cids);
    println!("| pins of local content, {clients} clients | pins/s | server's CPU |\n| --- | --- | --- |");
    for (who, key) in
        [("of a first account", server.key.clone()), ("of a second account", server.second().await?)]
    {
        let (began, cpu) = (Instant::now(), server.cpu_seconds()?);
        pin_all(&server.address, &key, &cids, clients).await?;
        let seconds = began.elapsed().as_secs_f64();
        let cores = (server.cpu_seconds()? - cpu) / seconds;
        println!("| {} {who} | {:.0} | {cores:.2} cores |", cids.len(), cids.len() as f64 / seconds);
    }
    Ok(())
}

/// Content of a file that differs from all others.
fn content(n: usize) -> Vec<u8> {
    format!("{n} {}", "content ".repeat(64)).into_bytes()
}

fn cid_of(n: usize) -> Outcome<String> {
    Ok(Block::hash(Version::V1, 0x55, 0x12, content(n).into())?.cid().to_string())
}

/// Pins every CID once, with `clients` requests at a time.
async fn pin_all(address: &str, key: &str, cids: &Arc<Vec<String>>, clients: usize) -> Outcome<()> {
    let next = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let (address, key) = (address.to_owned(), key.to_owned());
            let (next, cids) = (Arc::clone(&next), Arc::clone(cids));
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let mut answer = Vec::new();
                while let Some(cid) = cids.get(next.fetch_add(1, Ordering::Relaxed)) {
                    pin(&mut stream, &key, cid, &mut answer).await?;
                }
                Outcome::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// Sends one request and reads its response without a client library, which would use as much CPU as the server.
async fn pin(stream: &mut TcpStream, key: &str, cid: &str, answer: &mut Vec<u8>) -> Outcome<()> {
    let request = format!(
        "POST /api/v3/files/pin/{cid} HTTP/1.1\r\nHost: pinfold\r\nX-API-Key: {key}\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    answer.clear();
    loop {
        if stream.read_buf(answer).await? == 0 {
            return Err("the server closed the connection".into());
        }
        let text = String::from_utf8_lossy(answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        if body.len() < length.ok_or("an answer without a length")? {
            continue;
        }
        return if head.starts_with("HTTP/1.1 201") { Ok(()) } else { Err(text.into_owned().into()) };
    }
}

struct Server {
    child: Child,
    url: String,
    address: String,
    key: String,
    folder: TempDir,
}

impl Server {
    async fn start() -> Outcome<Self> {
        let folder = tempfile::Builder::new().prefix("bench-pins").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let mut child = Command::new(PINFOLD)
            .args(["serve", "--json", "--no-bootstrap", "--listen", "127.0.0.1:0"])
            .args(["--swarm-listen", "/ip4/127.0.0.1/tcp/0"])
            .env("PINFOLD_DATA_DIR", folder.path())
            .env("PINFOLD_LOG__FILTER", "warn")
            .env("PINFOLD_PLANS__PREMIUM__REQUESTS_PER_SECOND", "1000000")
            .env("PINFOLD_PLANS__PREMIUM__REQUESTS_PER_MINUTE", "60000000")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let line = BufReader::new(stdout).lines().next_line().await?.ok_or("the server did not start")?;
        let ready: Value = serde_json::from_str(&line)?;
        let text = |name: &str| Ok::<_, &str>(ready[name].as_str().ok_or("it is not ready")?.to_owned());
        let url = text("url")?;
        let address = url.trim_start_matches("http://").to_owned();
        Ok(Self { child, key: text("firstKey")?, address, url, folder })
    }

    /// Uploads a folder of files.
    async fn upload(&self, folder: usize) -> Outcome<()> {
        let mut form = Form::new();
        for file in folder * FILES..(folder + 1) * FILES {
            form = form.part("files", Part::bytes(content(file)).file_name(format!("folder/{file}")));
        }
        let url = format!("{}/api/v3/files/directory-dag", self.url);
        let request = reqwest::Client::builder().no_proxy().build()?.post(url);
        let answer = request.header("X-API-Key", &self.key).multipart(form).send().await?;
        if answer.status().is_success() { Ok(()) } else { Err(answer.text().await?.into()) }
    }

    /// Creates a second account and returns its key.
    async fn second(&self) -> Outcome<String> {
        let email = "second@example.org";
        self.command(&["user", "create", "--email", email, "--plan", "premium", "--no-password"]).await?;
        self.command(&["token", "create", "--email", email, "--name", "bench"]).await
    }

    async fn command(&self, args: &[&str]) -> Outcome<String> {
        let output =
            Command::new(PINFOLD).args(args).env("PINFOLD_DATA_DIR", self.folder.path()).output().await?;
        let text = |bytes| String::from_utf8(bytes).map(|text| text.trim().to_owned());
        if output.status.success() { Ok(text(output.stdout)?) } else { Err(text(output.stderr)?.into()) }
    }

    /// User and system time of the server so far, in seconds.
    fn cpu_seconds(&self) -> Outcome<f64> {
        let pid = self.child.id().ok_or("the server has ended")?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields = stat.rsplit(") ").next().ok_or("stat")?.split(' ').collect::<Vec<_>>();
        // In clock ticks; Linux has 100 per second.
        Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
    }
}
