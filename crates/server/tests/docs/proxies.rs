//! What the guides configure outside of Pinfold, with the real programs: nginx and Caddy in front of the server, and
//! systemd's own check of the unit file. `ci/peers` installs them.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::page::{Kind, Page};
use crate::session::{PATIENCE, Session, free_port};
use crate::start_of_a_guide;

const GUIDE: &str = "docs/guides/reverse-proxy.md";
const DOMAIN: &str = "pins.example.org";

#[test]
fn the_checks_of_the_guide_pass_behind_nginx() {
    behind("nginx", |root, port| {
        let site = root.join("etc/nginx/conf.d/pinfold.conf");
        rewrite(&site, "listen 443", &format!("listen 127.0.0.1:{port}"));
        let run = root.join("run");
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {};\n", run.join(name).display()))
            .concat();
        let main = format!(
            "daemon off;\nuser root;\npid {run}/nginx.pid;\nerror_log {run}/nginx.log;\nevents {{}}\n\
             http {{\naccess_log off;\n{temporary}include {site};\n}}\n",
            run = run.display(),
            site = site.display()
        );
        let config = root.join("etc/nginx/nginx.conf");
        fs::write(&config, main).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&run).arg("-c").arg(config);
        command
    });
}

#[test]
fn the_checks_of_the_guide_pass_behind_caddy() {
    behind("caddy", |root, port| {
        let config = root.join("etc/caddy/Caddyfile");
        let (certificate, key) = certificate(root);
        // A certificate of the test's own instead of one from the internet.
        let site = format!(
            "{{\nadmin off\nauto_https disable_redirects\ndefault_bind 127.0.0.1\n}}\n\
             https://{DOMAIN}:{port} {{\ntls {} {}\n",
            certificate.display(),
            key.display()
        );
        rewrite(&config, &format!("{DOMAIN} {{\n"), &site);
        let mut command = Command::new("caddy");
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(config);
        command
    });
}

#[test]
fn systemd_accepts_the_unit() {
    let session = Session::start();
    let is_unit = |kind: &Kind| matches!(kind, Kind::File { path } if path.ends_with(".service"));
    let unit = Page::read("docs/guides/systemd.md").blocks.into_iter().find(|block| is_unit(&block.kind));
    let path = session.root().join("run/pinfold.service");
    let unit = unit
        .expect("the guide has a unit")
        .text
        .replace("/usr/local/bin/pinfold", env!("CARGO_BIN_EXE_pinfold"));
    fs::write(&path, unit).unwrap();
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output();
    let output = output.expect("ci/peers installs systemd-analyze");
    let said = String::from_utf8_lossy(&output.stderr);
    // Units of the machine are read as well; what is wrong with them is not the guide's.
    let about_it: Vec<&str> = said.lines().filter(|line| line.contains("pinfold.service")).collect();
    assert!(output.status.success() && about_it.is_empty(), "{said}");
}

/// Runs the guide with this proxy: `command` adapts the configuration of the page to the port and starts it.
fn behind(name: &str, command: impl Fn(&Path, u16) -> Command) {
    let mut session = Session::start();
    session.run(&start_of_a_guide());
    let mut page = Page::read(GUIDE);
    let first = page.blocks.iter().position(|block| matches!(block.kind, Kind::Proxy));
    let mut checks = page.blocks.split_off(first.expect("the guide has checks"));
    for block in checks.iter_mut().filter(|block| matches!(block.kind, Kind::Proxy)) {
        block.kind = Kind::Run;
    }
    session.run(&page);

    let (root, port) = (session.root(), free_port());
    let (certificate, _) = certificate(&root);
    let curl =
        format!("cacert = \"{}\"\nconnect-to = \"{DOMAIN}:443:127.0.0.1:{port}\"\n", certificate.display());
    fs::write(root.join("home/.curlrc"), curl).unwrap();
    let log = fs::File::create(root.join("run/proxy.log")).unwrap();
    let mut command = command(&root, port);
    command.env("HOME", root.join("home")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let child = command.spawn().unwrap_or_else(|error| panic!("{name} ({error}): run ci/peers"));
    let mut proxy = Proxy(child);
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        let ended = proxy.0.try_wait().unwrap();
        let log = || fs::read_to_string(root.join("run/proxy.log")).unwrap_or_default();
        assert!(ended.is_none() && Instant::now() < deadline, "{name} did not start: {}", log());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    session.run(&Page { path: format!("{GUIDE} behind {name}"), blocks: checks });
    session.finish();
}

/// A program that ends with its test.
struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// Makes a certificate for the domain of the guide, once for each session.
fn certificate(root: &Path) -> (PathBuf, PathBuf) {
    let place = |end: &str| root.join(format!("etc/ssl/{DOMAIN}.{end}"));
    let (certificate, key) = (place("crt"), place("key"));
    if !certificate.exists() {
        fs::create_dir_all(root.join("etc/ssl")).unwrap();
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        command.args(["-subj", &format!("/CN={DOMAIN}"), "-addext", &format!("subjectAltName=DNS:{DOMAIN}")]);
        command.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
        let output = command.output().expect("openssl is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    (certificate, key)
}

/// Replaces a part of a configuration file that the page wrote, which must be there.
fn rewrite(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{} has no {from:?}", path.display());
    fs::write(path, text.replace(from, to)).unwrap();
}
