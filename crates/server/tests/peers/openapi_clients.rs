//! Generated clients of the OpenAPI document, and programs that use them, compile.

use std::path::Path;

use tokio::process::Command;

use crate::{cache, pinfold::Pinfold, program};

const CLIENTS: &str = "crates/server/tests/peers/clients";

#[tokio::test]
async fn typescript_types_are_generated_and_compile() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = folder.path();
    write_document(place).await;
    std::fs::copy(cache::repository().join(CLIENTS).join("openapi-client.ts"), place.join("client.ts"))
        .expect("it is there");
    std::os::unix::fs::symlink(cache::api_clients(), place.join("node_modules")).expect("a link");

    let run = |script: &str, arguments: &[&str]| {
        let mut command = Command::new(cache::node());
        command.arg(cache::api_clients().join(script)).args(arguments).current_dir(place);
        command
    };
    let generate = run("openapi-typescript/bin/cli.js", &["openapi.json", "--output", "api.d.ts"]);
    succeed("openapi-typescript", generate).await;
    let check = run(
        "typescript/bin/tsc",
        &[
            "--noEmit",
            "--strict",
            "--target",
            "es2022",
            "--module",
            "esnext",
            "--moduleResolution",
            "bundler",
            "client.ts",
        ],
    );
    succeed("tsc", check).await;
}

#[tokio::test]
async fn go_client_is_generated_and_compiles() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = folder.path();
    write_document(place).await;
    let module = cache::oapi_codegen().join("module");
    for file in ["go.mod", "go.sum"] {
        std::fs::copy(module.join(file), place.join(file)).expect("ci/peers has created the module");
    }
    std::os::unix::fs::symlink(module.join("vendor"), place.join("vendor")).expect("a link");
    std::fs::create_dir(place.join("example")).expect("a folder can be made");
    let example = cache::repository().join(CLIENTS).join("openapi-client.go");
    std::fs::copy(example, place.join("example/main.go")).expect("it is there");

    let mut generate = Command::new(cache::oapi_codegen().join("oapi-codegen"));
    generate.args(["-generate", "types,client", "-package", "client", "-o", "client.go", "openapi.json"]);
    generate.current_dir(place);
    succeed("oapi-codegen", generate).await;
    for arguments in [["vet", "-mod=vendor", "./..."], ["build", "-mod=vendor", "./..."]] {
        let mut go = Command::new("go");
        go.args(arguments).current_dir(place).env("GOFLAGS", "").env("GOPROXY", "off");
        succeed("go", go).await;
    }
}

/// Writes the document of a server as `openapi.json`.
async fn write_document(place: &Path) {
    let pinfold = Pinfold::start(&["--no-bootstrap"]).await;
    let document = pinfold.document().await;
    std::fs::write(place.join("openapi.json"), document.to_string()).expect("it can be written");
}

/// Runs a program to its end and prints its output if it failed.
async fn succeed(name: &str, command: Command) {
    let output = program::finish(name, command, b"").await;
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{name}: {}\n{said}", output.status);
}
