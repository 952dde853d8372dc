//! Forms as real clients write them, byte for byte: recorded from curl 7.88 (PHP's is the same library), Python requests
//! 2.34, the `FormData` of Node 20 (undici), axios 1.21 with form-data 4.0, and Go 1.26; and what older ones are known for.

use crate::harness::{Answer, Api, HELLO};

/// A form with the boundary `X`, as these bytes.
async fn send(api: &Api, key: &str, path: &str, body: &[u8]) -> Answer {
    let body = axum::body::Body::from(body.to_vec());
    api.post(path).key(key).header("content-type", "multipart/form-data; boundary=X").stream(body).await
}

async fn file(api: &Api, key: &str, body: &[u8]) -> Answer {
    send(api, key, "/api/v3/files/", body).await
}

/// The name of a file that was uploaded with this head of its part.
async fn name(api: &Api, key: &str, head: &[u8]) -> String {
    let body = [b"--X\r\n", head, b"\r\n\r\nhello\r\n--X--\r\n"].concat();
    let answer = file(api, key, &body).await;
    assert_eq!(answer.status(), 201, "{}: {}", String::from_utf8_lossy(head), answer.text());
    assert_eq!(answer.json()["cid"], HELLO);
    answer.json()["originalName"].as_str().unwrap_or("none").to_owned()
}

#[tokio::test]
async fn filenames_are_parsed_as_each_client_writes_them() {
    let api = Api::start().await;
    let key = api.key("free", "files:write").await;
    for (client, head, expected) in [
        // The first: an absent name keeps the one before it.
        ("no filename", &b"Content-Disposition: form-data; name=\"file\""[..], "none"),
        (
            "curl, PHP, requests, undici, form-data",
            &b"Content-Disposition: form-data; name=\"file\"; filename=\"say %22hi%22.txt\"\r\nContent-Type: text/plain"[..],
            "say \"hi\".txt",
        ),
        (
            "curl before 7.81",
            &b"Content-Disposition: form-data; name=\"file\"; filename=\"say \\\"hi\\\".txt\"\r\nContent-Type: text/plain"[..],
            "say \"hi\".txt",
        ),
        (
            "raw UTF-8, as all of them",
            &b"Content-Disposition: form-data; name=\"file\"; filename=\"na\xc3\xafve.txt\""[..],
            "naïve.txt",
        ),
        (
            "Python requests of old",
            &b"Content-Disposition: form-data; name=\"file\"; filename*=utf-8''na%C3%AFve.txt"[..],
            "naïve.txt",
        ),
        (
            "Go",
            &b"Content-Disposition: form-data; name=\"file\"; filename=\"a \\\\ b\\\".txt\"\r\nContent-Type: application/octet-stream"[..],
            "b\".txt",
        ),
        (
            "a percent sign that stands for itself",
            &b"Content-Disposition: form-data; name=\"file\"; filename=\"\xf0\x9f\x90\x9f 100%25.txt\"\r\nContent-Type: text/plain"[..],
            "🐟 100%25.txt",
        ),
        (
            "axios in a browser",
            &b"content-disposition: form-data; name=\"file\"; filename=\"a;b.txt\"\r\ncontent-type: text/plain"[..],
            "a;b.txt",
        ),
        (
            "an old browser on Windows",
            &b"Content-Disposition: form-data; name=\"file\"; filename=\"C:\\fakepath\\a.txt\""[..],
            "a.txt",
        ),
        ("Latin-1", &b"Content-Disposition: form-data; name=\"file\"; filename=\"na\xefve.txt\""[..], "naïve.txt"),
        ("no quotes", &b"Content-Disposition: form-data; name=file; filename=a.txt"[..], "a.txt"),
    ] {
        assert_eq!(name(&api, &key, head).await, expected, "{client}");
    }
}

#[tokio::test]
async fn name_with_line_breaks_is_refused_and_never_becomes_a_header() {
    let api = Api::start().await;
    let key = api.key("free", "files:write").await;
    let body = b"--X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a%0D%0Ab.txt\"\r\n\r\nhello\r\n--X--\r\n";
    let answer = file(&api, &key, body).await;
    assert_eq!(answer.status(), 400, "{}", answer.text());
    assert!(answer.message().contains("control characters"), "{}", answer.text());
}

#[tokio::test]
async fn encoded_part_content_is_refused() {
    let api = Api::start().await;
    let key = api.key("free", "files:write").await;
    let head = |encoding: &str| {
        format!(
            "--X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\nContent-Transfer-Encoding: {encoding}\r\n\r\nhello\r\n--X--\r\n"
        )
    };
    assert_eq!(file(&api, &key, head("binary").as_bytes()).await.status(), 201);
    let answer = file(&api, &key, head("BASE64").as_bytes()).await;
    assert_eq!(answer.status(), 400);
    assert!(answer.message().contains("Content-Transfer-Encoding"), "{}", answer.text());
}

async fn directory(api: &Api, key: &str, body: &[u8]) -> Answer {
    send(api, key, "/api/v3/files/directory-dag", body).await
}

fn paths(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status(), 201, "{}", answer.text());
    let files = answer.json()["files"].as_array().expect("files").clone();
    files.iter().map(|file| file["path"].as_str().expect("a path").to_owned()).collect()
}

#[tokio::test]
async fn path_content_pairs_come_in_any_order() {
    let api = Api::start().await;
    let key = api.key("premium", "files:write").await;
    // As a FormData of blobs sends it: each part with a filename, the path too, and strings without.
    let body = b"--X\r\nContent-Disposition: form-data; name=\"cl\"\r\n\r\ncl1-eu\r\n\
        --X\r\nContent-Disposition: form-data; name=\"files[0][path]\"; filename=\"blob\"\r\nContent-Type: text/plain\r\n\r\nimg/a.txt\r\n\
        --X\r\nContent-Disposition: form-data; name=\"files[0][content]\"; filename=\"blob\"\r\nContent-Type: application/octet-stream\r\n\r\na\r\n\
        --X\r\nContent-Disposition: form-data; name=\"files[1][content]\"\r\n\r\njust a string\r\n\
        --X\r\nContent-Disposition: form-data; name=\"files[1][path]\"\r\n\r\nb.txt\r\n\
        --X\r\nContent-Disposition: form-data; name=\"files[2][content]\"; filename=\"c.txt\"\r\n\r\nc\r\n\
        --X\r\nContent-Disposition: form-data; name=\"timelock\"\r\n\r\n2026-12-31T23:59:59Z\r\n--X--\r\n";
    let answer = directory(&api, &key, body).await;
    assert_eq!(paths(&answer), ["img/a.txt", "b.txt", "c.txt"]);
    let reply = answer.json();
    assert_eq!(
        (&reply["clusterId"], &reply["expiresAt"]),
        (&"cl1-eu".into(), &"2026-12-31T23:59:59.000Z".into())
    );

    let nameless = b"--X\r\nContent-Disposition: form-data; name=\"files[7][content]\"\r\n\r\na\r\n--X--\r\n";
    let answer = directory(&api, &key, nameless).await;
    assert_eq!(answer.status(), 400);
    assert!(answer.message().contains("files[7][content]"), "{}", answer.text());
    api.until_uploads_are_released().await;
}

#[tokio::test]
async fn numbered_file_parts_are_accepted() {
    let api = Api::start().await;
    let key = api.key("free", "files:write").await;
    // As PHP sends them, whose forms can't repeat a name.
    let body = b"--X\r\nContent-Disposition: form-data; name=\"files[0]\"; filename=\"index.html\"\r\n\r\na\r\n\
        --X\r\nContent-Disposition: form-data; name=\"files[1]\"; filename=\"img/logo.svg\"\r\n\r\nb\r\n--X--\r\n";
    assert_eq!(paths(&directory(&api, &key, body).await), ["index.html", "img/logo.svg"]);

    let nameless = b"--X\r\nContent-Disposition: form-data; name=\"files[0]\"\r\n\r\na\r\n--X--\r\n";
    let answer = directory(&api, &key, nameless).await;
    assert_eq!(answer.status(), 400);
    assert!(answer.message().contains("files[0]"), "{}", answer.text());
    api.until_uploads_are_released().await;
}

#[tokio::test]
async fn backslashes_in_paths_become_slashes() {
    let api = Api::start().await;
    let key = api.key("free", "files:write").await;
    // Raw, as undici on Windows sends them, and doubled, as Go and old curl do.
    let body = b"--X\r\nContent-Disposition: form-data; name=\"files\"; filename=\"img\\icons\\a.png\"\r\n\r\na\r\n\
        --X\r\nContent-Disposition: form-data; name=\"files[]\"; filename=\"img\\\\b.png\"\r\n\r\nb\r\n--X--\r\n";
    assert_eq!(paths(&directory(&api, &key, body).await), ["img/icons/a.png", "img/b.png"]);
    for path in ["C:\\site\\a.png", "\\\\server\\share\\a", "..\\a", "img\\..\\..\\a", "\\a", "a\\\\\\\\b"] {
        let body = format!(
            "--X\r\nContent-Disposition: form-data; name=\"files\"; filename=\"{path}\"\r\n\r\na\r\n--X--\r\n"
        );
        assert_eq!(directory(&api, &key, body.as_bytes()).await.status(), 400, "{path}");
    }
    api.until_uploads_are_released().await;
}

#[tokio::test]
async fn duplicate_paths_are_all_named() {
    let api = Api::start().await;
    let key = api.key("free", "files:write").await;
    let part = |name: &str| {
        let content = "x".repeat(200_000);
        format!(
            "--X\r\nContent-Disposition: form-data; name=\"files\"; filename=\"{name}\"\r\n\r\n{content}\r\n"
        )
    };
    let names = ["index.html", "logo.svg", "index.html", "a.txt", "logo.svg"];
    let body = names.map(part).concat() + "--X--\r\n";
    let answer = directory(&api, &key, body.as_bytes()).await;
    assert_eq!(answer.status(), 400);
    let message = answer.message();
    assert!(
        message.contains(r#""index.html", "logo.svg""#) && message.contains("files[i][path]"),
        "{message}"
    );
    assert!(!message.contains("a.txt"), "{message}");

    let many = part("a").repeat(100) + "--X--\r\n";
    assert_eq!(directory(&api, &key, many.as_bytes()).await.message().matches("\"a\"").count(), 10);
    api.until_uploads_are_released().await;
}

#[tokio::test]
async fn preamble_and_epilogue_are_ignored() {
    let api = Api::start().await;
    let key = api.key("free", "files:write").await;
    let body = b"This is a form.\r\n--X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nhello\r\n--X--\r\nThe end.";
    assert_eq!(file(&api, &key, body).await.status(), 201);
}
