//! A `multipart/form-data` body, part by part.
//!
//! Each part comes in pieces, as they arrive. Parts may stand in any order, with or without a file name
//! and a type of their own. Absent on purpose: what the parts mean, and forms within forms.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::stream;
use hyper::HeaderMap;
use hyper::header::CONTENT_TYPE;
use multer::{Field, Multipart};

use crate::body::{Pieces, UploadError, check_len};

/// The most that is buffered while no part goes on: what two reads of a connection can bring, which
/// is room for the headers of a part many times over.
const UNREAD_BYTES_MAX: usize = 640 << 10;

/// Whether a body is a form, by the word of its headers.
pub(crate) enum Kind {
    /// The body is itself what it stands for.
    Raw,
    /// A form whose parts this text divides.
    Form { boundary: String },
    /// A form that does not say what divides its parts, or not so that it can be read.
    NoBoundary,
}

pub(crate) fn kind(headers: &HeaderMap) -> Kind {
    let Some(content_type) = headers.get(CONTENT_TYPE) else { return Kind::Raw };
    match content_type.to_str().map(multer::parse_boundary) {
        Ok(Ok(boundary)) => Kind::Form { boundary },
        // Stored as it is, the form itself would be the value.
        _ if announces_form(content_type.as_bytes()) => Kind::NoBoundary,
        _ => Kind::Raw,
    }
}

fn announces_form(content_type: &[u8]) -> bool {
    const FORM: &[u8] = b"multipart/form-data";
    content_type.split_at_checked(FORM.len()).is_some_and(|(kind, rest)| {
        kind.eq_ignore_ascii_case(FORM) && rest.first().is_none_or(|next| b"; \t,".contains(next))
    })
}

/// A form as it arrives.
pub(crate) struct Form<'r> {
    parts: Multipart<'r>,
    unread: Unread,
}

/// Bytes that have arrived since a part last went on.
type Unread = Arc<AtomicUsize>;

/// One part. It must be gone before the next one is asked for.
pub(crate) struct Part<'r> {
    field: Field<'r>,
    unread: Unread,
}

/// Why a form cannot be read on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FormError {
    /// The body did not arrive.
    Upload(UploadError),
    /// It is no form.
    Malformed,
}

impl From<UploadError> for FormError {
    fn from(error: UploadError) -> FormError {
        FormError::Upload(error)
    }
}

impl From<multer::Error> for FormError {
    fn from(error: multer::Error) -> FormError {
        match error {
            multer::Error::StreamReadFailed(error) => match error.downcast::<Cut>() {
                Ok(cut) => cut.0,
                Err(_) => FormError::Malformed,
            },
            _ => FormError::Malformed,
        }
    }
}

/// What a body has left, and what of it waits to be read.
struct Source<'r, P> {
    body: &'r mut P,
    left: u64,
    unread: Unread,
}

impl<P: Pieces> Source<'_, P> {
    async fn next(&mut self) -> Result<Option<Bytes>, FormError> {
        // The reader of the form takes whatever is ready before it looks at any of it.
        tokio::task::yield_now().await;
        let Some(piece) = self.body.next().await? else { return Ok(None) };
        let len = piece.len() as u64;
        let max = self.left;
        self.left = max.checked_sub(len).ok_or(UploadError::TooLong { len, max })?;
        let before = self.unread.fetch_add(piece.len(), Ordering::Relaxed);
        if before + piece.len() > UNREAD_BYTES_MAX {
            return Err(FormError::Malformed);
        }
        Ok(Some(piece))
    }
}

impl<'r> Form<'r> {
    /// A form of at most `max` bytes.
    pub(crate) fn new(
        body: &'r mut (impl Pieces + 'r),
        boundary: String,
        max: u64,
    ) -> Result<Form<'r>, UploadError> {
        check_len(body.declared().unwrap_or(0), max)?;
        let unread = Unread::default();
        let source = Source { body, left: max, unread: Arc::clone(&unread) };
        let stream = stream::unfold(source, |mut source| async move {
            let piece = source.next().await.transpose()?;
            Some((piece.map_err(Cut), source))
        });
        Ok(Form { parts: Multipart::new(stream, boundary), unread })
    }

    /// The next part, `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Part<'r>>, FormError> {
        let field = self.parts.next_field().await?;
        self.unread.store(0, Ordering::Relaxed);
        Ok(field.map(|field| Part { field, unread: Arc::clone(&self.unread) }))
    }
}

impl Part<'_> {
    pub(crate) fn name(&self) -> Option<&str> {
        self.field.name()
    }

    /// Takes the rest of a part and forgets it.
    pub(crate) async fn skip(mut self) -> Result<(), FormError> {
        while self.piece().await?.is_some() {}
        Ok(())
    }

    /// All of a part, if it has no more than `max` bytes.
    pub(crate) async fn collect(mut self, max: usize) -> Result<Vec<u8>, FormError> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.piece().await? {
            let len = bytes.len() + piece.len();
            if len > max {
                return Err(UploadError::TooLong { len: len as u64, max: max as u64 }.into());
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, FormError> {
        let piece = self.field.chunk().await?;
        self.unread.store(0, Ordering::Relaxed);
        Ok(piece)
    }
}

impl Pieces for Part<'_> {
    fn declared(&self) -> Option<u64> {
        None
    }

    async fn next(&mut self) -> Result<Option<Bytes>, UploadError> {
        self.piece().await.map_err(|error| match error {
            FormError::Upload(error) => error,
            FormError::Malformed => UploadError::Broken,
        })
    }
}

/// Carries an error through the reader of the form.
#[derive(Debug)]
struct Cut(FormError);

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body broke off")
    }
}

impl std::error::Error for Cut {}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A body in the pieces given.
    struct Given(VecDeque<Result<Bytes, UploadError>>);

    impl Given {
        fn cut(body: &[u8], len: usize) -> Given {
            Given(body.chunks(len).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect())
        }
    }

    impl Pieces for Given {
        fn declared(&self) -> Option<u64> {
            None
        }

        async fn next(&mut self) -> Result<Option<Bytes>, UploadError> {
            self.0.pop_front().transpose()
        }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
    }

    /// All parts with their bytes.
    fn parts(mut body: Given) -> Result<Vec<(String, Vec<u8>)>, FormError> {
        run(async {
            let mut form = Form::new(&mut body, "b0".to_owned(), 4 << 20)?;
            let mut found = Vec::new();
            while let Some(part) = form.next().await? {
                let name = part.name().unwrap_or_default().to_owned();
                found.push((name, part.collect(1 << 20).await?));
            }
            Ok(found)
        })
    }

    const FORM: &str = "preamble\r\n--b0\r\nContent-Disposition: form-data; name=\"metadata\"\r\n\r\n\
        {\"a\":1}\r\n--b0\r\nContent-Type: text/plain\r\nContent-Disposition: form-data; \
        filename=\"f.bin\"; name=\"value\"\r\n\r\n\r\n--b\r\n--b1\r\n\r\r\n\r\n--b0\r\n\
        content-disposition: form-data; name=empty\r\n\r\n\r\n--b0--\r\nepilogue";

    #[test]
    fn a_form_reads_the_same_however_it_is_cut() {
        let expected = vec![
            ("metadata".to_owned(), b"{\"a\":1}".to_vec()),
            ("value".to_owned(), b"\r\n--b\r\n--b1\r\n\r\r\n".to_vec()),
            ("empty".to_owned(), Vec::new()),
        ];
        for len in 1..=FORM.len() {
            assert_eq!(parts(Given::cut(FORM.as_bytes(), len)), Ok(expected.clone()), "{len}");
        }
    }

    #[test]
    fn a_form_that_ends_early_is_malformed_wherever_it_ends() {
        let end = FORM.find("--b0--").expect("the end") + "--b0--".len();
        for len in 0..end {
            let body = Given::cut(&FORM.as_bytes()[..len], 7);
            assert_eq!(parts(body), Err(FormError::Malformed), "{len}");
        }
    }

    #[test]
    fn an_error_of_the_connection_comes_through() {
        let mut body = Given::cut(&FORM.as_bytes()[..200], 50);
        body.0.push_back(Err(UploadError::TooSlow));
        assert_eq!(parts(body), Err(FormError::Upload(UploadError::TooSlow)));
    }

    #[test]
    fn endless_headers_of_a_part_are_not_buffered() {
        let mut body = b"--b0\r\n".to_vec();
        body.extend(b"X-Long: ".iter().chain([b'x'; 2 << 20].iter()));
        assert_eq!(parts(Given::cut(&body, 16 << 10)), Err(FormError::Malformed));
        assert_eq!(parts(Given::cut(&[b'-'; 2 << 20], 16 << 10)), Err(FormError::Malformed));
    }

    #[test]
    fn a_form_of_endless_parts_ends_where_it_is_too_long() {
        let part = b"--b0\r\nContent-Disposition: form-data; name=x\r\n\r\nx\r\n";
        let body: Vec<u8> = part.iter().copied().cycle().take(5 << 20).collect();
        let refused = parts(Given::cut(&body, 16 << 10));
        assert!(matches!(refused, Err(FormError::Upload(UploadError::TooLong { .. }))));
    }

    #[test]
    fn the_headers_say_whether_a_body_is_a_form() {
        let of = |content_type: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
            kind(&headers)
        };
        for content_type in
            ["multipart/form-data; boundary=b0", "Multipart/Form-Data;boundary=\"b0\""]
        {
            assert!(matches!(of(content_type), Kind::Form { boundary } if boundary == "b0"));
        }
        for content_type in [
            "multipart/form-data",
            "multipart/form-data; boundary=\"\"",
            "multipart/form-data; boundary=\"b0",
            "Multipart/form-data; boundary=a b",
            "multipart/form-data, text/plain; boundary=b0",
        ] {
            assert!(matches!(of(content_type), Kind::NoBoundary), "{content_type}");
        }
        for content_type in [
            "text/plain",
            "application/json",
            "multipart/mixed; boundary=b0",
            "multipart/form-database",
            "x",
        ] {
            assert!(matches!(of(content_type), Kind::Raw), "{content_type}");
        }
        assert!(matches!(kind(&HeaderMap::new()), Kind::Raw));
    }
}
