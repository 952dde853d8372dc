//! Multipart forms, read part by part, with the deviations of real clients. File contents are not buffered here.

use std::io;

use axum::extract::Request;
use axum::http::header;
use futures::TryStreamExt;
use multer::{Field, Multipart};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

use crate::Bodies;
use crate::body::{PacedBody, Watch};
use crate::v3::reject::Reject;
use crate::v3::uploads::disposition::Disposition;

/// A form being received.
pub(crate) struct Form {
    parts: Multipart<'static>,
    watch: Watch,
    field_bytes_max: usize,
}

/// One part of a form. It must be read to its end before the next one.
pub(crate) struct Part {
    field: Field<'static>,
    disposition: Disposition,
    watch: Watch,
    field_bytes_max: usize,
}

impl Form {
    /// Reads the body of a request as a form.
    pub(crate) fn of(request: Request, bounds: &Bodies) -> Result<Self, Reject> {
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let boundary = multer::parse_boundary(content_type.unwrap_or_default())
            .map_err(|_| Reject::invalid("Send the content as multipart/form-data"))?;
        let (body, watch) = PacedBody::new(request.into_body().into_data_stream(), bounds);
        let parts = Multipart::new(body, boundary);
        Ok(Self { parts, watch, field_bytes_max: bounds.field_bytes_max })
    }

    /// The next part; `None` after the form's closing boundary, so that a form that was cut off is an error.
    pub(crate) async fn next(&mut self) -> Result<Option<Part>, Reject> {
        self.watch.expect_head();
        let field = self.parts.next_field().await.map_err(|error| self.reject(&error))?;
        self.watch.expect_content();
        let Some(field) = field else { return Ok(None) };
        let header = field.headers().get(header::CONTENT_DISPOSITION);
        let disposition = header.map(|value| Disposition::parse(value.as_bytes())).unwrap_or_default();
        if is_encoded(&field) {
            return Err(Reject::invalid("Parts with a Content-Transfer-Encoding are not supported"));
        }
        let (watch, field_bytes_max) = (self.watch.clone(), self.field_bytes_max);
        Ok(Some(Part { field, disposition, watch, field_bytes_max }))
    }

    /// The cause when reading a part's content failed: the error of the body if there is one, or else that of the reader.
    pub(crate) fn or_body_error(&self, reject: impl Into<Reject>) -> Reject {
        self.watch.error().map_or_else(|| reject.into(), Reject::from)
    }

    fn reject(&self, error: &multer::Error) -> Reject {
        self.or_body_error(wording(error))
    }
}

impl Part {
    /// The part's name.
    pub(crate) fn name(&self) -> &str {
        self.disposition.name.as_deref().unwrap_or_default()
    }

    /// The filename of the part; a path in directory uploads.
    pub(crate) fn file_name(&self) -> Option<&str> {
        self.disposition.file_name.as_deref()
    }

    /// Reads and discards the content.
    pub(crate) async fn skip(mut self) -> Result<(), Reject> {
        while self.field.chunk().await.map_err(|error| self.reject(&error))?.is_some() {}
        Ok(())
    }

    /// The content as text, of bounded length.
    pub(crate) async fn text(mut self) -> Result<String, Reject> {
        let mut content = Vec::new();
        while let Some(chunk) = self.field.chunk().await.map_err(|error| self.reject(&error))? {
            if content.len() + chunk.len() > self.field_bytes_max {
                let (name, max) = (self.name(), self.field_bytes_max);
                return Err(Reject::too_large(format!("The field `{name}` may have at most {max} bytes")));
            }
            content.extend_from_slice(&chunk);
        }
        String::from_utf8(content).map_err(|_| Reject::invalid("A text field of the form is not UTF-8"))
    }

    /// The content as a stream.
    pub(crate) fn into_reader(self) -> impl AsyncRead + Send + Unpin {
        StreamReader::new(self.field.map_err(io::Error::other))
    }

    fn reject(&self, error: &multer::Error) -> Reject {
        self.watch.error().map_or_else(|| wording(error), Reject::from)
    }
}

/// Whether a part's content is transfer-encoded, which RFC 7578 deprecates.
fn is_encoded(field: &Field<'_>) -> bool {
    let encoding =
        field.headers().get("content-transfer-encoding").map(|value| value.as_bytes().trim_ascii());
    let is = |encoding: &[u8], name: &str| encoding.eq_ignore_ascii_case(name.as_bytes());
    encoding.is_some_and(|encoding| is(encoding, "base64") || is(encoding, "quoted-printable"))
}

fn wording(error: &multer::Error) -> Reject {
    use multer::Error::{IncompleteFieldData, IncompleteHeaders, IncompleteStream};
    if matches!(error, IncompleteStream | IncompleteFieldData { .. } | IncompleteHeaders) {
        return Reject::invalid("The upload was interrupted");
    }
    // The text of these errors is about the form only.
    Reject::invalid(format!("The form is malformed: {error}"))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use bytes::Bytes;
    use futures::stream;

    use super::*;

    fn form(chunks: Vec<&'static [u8]>) -> Form {
        let chunks = chunks.into_iter().map(|chunk| Ok::<_, io::Error>(Bytes::from_static(chunk)));
        form_of(Body::from_stream(stream::iter(chunks)))
    }

    fn form_of(body: Body) -> Form {
        let request = Request::builder()
            .header("content-type", "multipart/form-data; boundary=\"frontier\"")
            .body(body)
            .expect("a request");
        Form::of(request, &Bodies::default()).expect("a form")
    }

    /// A form with this start and no end.
    fn endless(start: &'static [u8]) -> Form {
        let filler = std::iter::repeat_with(|| &[b'x'; 8 * 1024][..]);
        let chunks =
            std::iter::once(start).chain(filler).map(|chunk| Ok::<_, io::Error>(Bytes::from_static(chunk)));
        form_of(Body::from_stream(stream::iter(chunks)))
    }

    #[tokio::test]
    async fn parts_are_read_from_chunks_of_any_size() {
        let text: &[u8] = b"--frontier\r\nContent-Disposition: form-data; name=\"cl\"\r\n\r\neu\r\n--frontier\r\n\
            Content-Disposition: form-data; name=\"file\"; filename=\"a b.txt\"\r\n\r\nhel\r\nlo\r\n--frontier--\r\n";
        for size in [1, 7, 4096] {
            let mut form = form(text.chunks(size).collect());
            let part = form.next().await.expect("no fault").expect("a part");
            assert_eq!((part.name(), part.file_name()), ("cl", None));
            assert_eq!(part.text().await.expect("text"), "eu");
            let part = form.next().await.expect("no fault").expect("a part");
            assert_eq!(part.file_name(), Some("a b.txt"));
            assert_eq!(part.text().await.expect("text"), "hel\r\nlo");
            assert!(form.next().await.expect("no fault").is_none());
        }
    }

    #[tokio::test]
    async fn form_without_end_is_an_error() {
        let mut form = form(vec![b"--frontier\r\nContent-Disposition: form-data; name=\"cl\"\r\n\r\neu\r\n"]);
        let part = form.next().await.expect("no fault").expect("a part");
        assert!(format!("{:?}", part.text().await).contains("interrupted"));
    }

    #[tokio::test]
    async fn endless_part_header_is_refused() {
        let mut form = endless(b"--frontier\r\nX-Long: ");
        assert!(format!("{:?}", form.next().await.err()).contains("headers without end"));
    }

    #[tokio::test]
    async fn text_field_is_bounded() {
        let mut form = endless(b"--frontier\r\nContent-Disposition: form-data; name=\"cl\"\r\n\r\n");
        let part = form.next().await.expect("no fault").expect("a part");
        assert!(format!("{:?}", part.text().await).contains("413"));
    }
}
