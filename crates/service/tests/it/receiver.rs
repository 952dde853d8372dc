//! Somebody who is told: a small HTTP server on loopback that answers as the story says, and remembers what came.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use pinfold_outbound::signature;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

use crate::world::DEADLINE;

/// Something that came.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) delivery: String,
    pub(crate) event: String,
    pub(crate) signature: String,
    pub(crate) body: String,
}

impl Told {
    /// Whether it is signed with this secret.
    pub(crate) fn is_signed_with(&self, secret: &str) -> bool {
        let unix_s = self.signature.trim_start_matches("t=").split(',').next().unwrap().parse().unwrap();
        signature(secret, unix_s, &self.body) == self.signature
    }
}

/// What is answered.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Status(u16),
    /// Nothing, until the receiver opens its gate; then 200.
    Waits,
}

pub(crate) struct Receiver {
    url: String,
    shared: Arc<Shared>,
}

struct Shared {
    answers: Mutex<VecDeque<Answer>>,
    always: Mutex<Answer>,
    told: Mutex<Vec<Told>>,
    came: Notify,
    gate: watch::Sender<bool>,
}

impl Receiver {
    /// One that answers 200.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            answers: Mutex::default(),
            always: Mutex::new(Answer::Status(200)),
            told: Mutex::default(),
            came: Notify::new(),
            gate: watch::Sender::new(false),
        });
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&serving)));
            }
        });
        Self { url, shared }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// What it answers next, one after another.
    pub(crate) fn script(&self, answers: impl IntoIterator<Item = Answer>) {
        self.shared.answers.lock().unwrap().extend(answers);
    }

    /// What it answers when no script says another thing.
    pub(crate) fn always(&self, answer: Answer) {
        *self.shared.always.lock().unwrap() = answer;
    }

    /// Lets those who wait be answered.
    pub(crate) fn open(&self) {
        self.shared.gate.send_replace(true);
    }

    /// What came so far.
    pub(crate) fn told(&self) -> Vec<Told> {
        self.shared.told.lock().unwrap().clone()
    }

    pub(crate) fn events(&self) -> Vec<String> {
        self.told().into_iter().map(|told| told.event).collect()
    }

    /// Waits until so much has come.
    pub(crate) async fn until_told(&self, count: usize) -> Vec<Told> {
        let told = async {
            loop {
                let came = self.shared.came.notified();
                let told = self.told();
                if told.len() >= count {
                    return told;
                }
                came.await;
            }
        };
        tokio::time::timeout(DEADLINE, told).await.expect("it is told")
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let header = |name: &str| {
        let value = |line: &String| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then(|| value.to_owned())
        };
        head.iter().find_map(value).unwrap_or_default()
    };
    let mut body = vec![0; header("content-length").parse().ok()?];
    stream.read_exact(&mut body).await.ok()?;
    let told = Told {
        delivery: header("pinfold-delivery"),
        event: header("pinfold-event"),
        signature: header("pinfold-signature"),
        body: String::from_utf8(body).ok()?,
    };
    let answer = shared.answers.lock().unwrap().pop_front();
    let answer = answer.unwrap_or_else(|| shared.always.lock().unwrap().clone());
    shared.told.lock().unwrap().push(told);
    shared.came.notify_waiters();
    let status = match answer {
        Answer::Status(status) => status,
        Answer::Waits => {
            shared.gate.subscribe().wait_for(|is_open| *is_open).await.ok()?;
            200
        }
    };
    let text = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.ok()
}
