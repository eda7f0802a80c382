//! Downloads with `Range` and strong entity tags (RFC 9110, sections 13 and 14).

use std::io::SeekFrom;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::problems::Refusal;
use crate::service::{CoreFileSource, ServiceError};
use crate::types::problem::Problem;

/// What a `Range` header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// The whole file: no header, or one that this server does not understand.
    Whole,
    /// These bytes.
    Part { first: u64, length: u64 },
    /// A range outside the file.
    NotInFile,
}

/// Bytes read from the file at a time: large enough for a fast disk, small enough for a thousand downloads.
const READ_CHUNK_BYTES: usize = 256 * 1024;

/// The answer for `source` to a request with these headers, and first byte and length of what it carries, if it does.
pub(super) async fn answer(
    source: CoreFileSource,
    name: &str,
    headers: &HeaderMap,
) -> Result<(Response, Option<(u64, u64)>), Refusal> {
    let etag = format!("\"{}\"", source.etag);
    let common = common_headers(&source, name, &etag);
    if let Some(known) = text(headers, header::IF_NONE_MATCH)
        && known.split(',').any(|tag| tag.trim() == etag || tag.trim() == "*")
    {
        return Ok(((StatusCode::NOT_MODIFIED, common).into_response(), None));
    }
    let range_is_valid = text(headers, header::IF_RANGE).is_none_or(|tag| tag.trim() == etag);
    let wanted = match text(headers, header::RANGE) {
        Some(range) if range_is_valid => parse_range(range, source.length_bytes),
        _ => Wanted::Whole,
    };
    let total = source.length_bytes;
    let (status, first, length) = match wanted {
        Wanted::Whole => (StatusCode::OK, 0, total),
        Wanted::Part { first, length } => (StatusCode::PARTIAL_CONTENT, first, length),
        Wanted::NotInFile => return Ok((not_in_file(total), None)),
    };
    let mut file = tokio::fs::File::from_std(source.file);
    if first > 0 {
        file.seek(SeekFrom::Start(first))
            .await
            .map_err(|why| ServiceError::Internal(format!("cannot seek to byte {first} of {name}: {why}")))?;
    }
    let body = Body::from_stream(ReaderStream::with_capacity(file.take(length), READ_CHUNK_BYTES));
    let mut response = (status, common, body).into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if status == StatusCode::PARTIAL_CONTENT {
        let last = first + length - 1;
        if let Ok(value) = HeaderValue::from_str(&format!("bytes {first}-{last}/{total}")) {
            response.headers_mut().insert(header::CONTENT_RANGE, value);
        }
    }
    Ok((response, Some((first, length))))
}

/// Headers of every answer that succeeds.
fn common_headers(source: &CoreFileSource, name: &str, etag: &str) -> [(HeaderName, String); 4] {
    [
        (header::ETAG, etag.to_owned()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::CONTENT_TYPE, source.media_type.to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ]
}

/// 416, with the length that the file has.
fn not_in_file(total: u64) -> Response {
    let detail = format!("the range is not in the file, which has {total} bytes");
    let mut response = Refusal(Box::new(Problem::new(416, "range", "Range not in the file", detail))).into_response();
    if let Ok(value) = HeaderValue::from_str(&format!("bytes */{total}")) {
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    response
}

/// A header as text.
fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Reads a `Range` header; several ranges or other units are answered with the whole file, as RFC 9110 allows.
fn parse_range(header: &str, total: u64) -> Wanted {
    let Some(spec) = header.trim().strip_prefix("bytes=") else {
        return Wanted::Whole;
    };
    let Some((first, last)) = spec.trim().split_once('-') else {
        return Wanted::Whole;
    };
    if spec.contains(',') {
        return Wanted::Whole;
    }
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => part(first, last.min(total.saturating_sub(1)), total),
        (Ok(first), Err(_)) if last.is_empty() => part(first, total.saturating_sub(1), total),
        (Err(_), Ok(count)) if first.is_empty() && count > 0 && total > 0 => {
            part(total.saturating_sub(count), total - 1, total)
        }
        (Err(_), Ok(_)) if first.is_empty() => Wanted::NotInFile,
        _ => Wanted::Whole,
    }
}

/// The bytes `first..=last`, if `first` is in the file.
fn part(first: u64, last: u64, total: u64) -> Wanted {
    if first >= total {
        return Wanted::NotInFile;
    }
    Wanted::Part {
        first,
        length: last - first + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_the_file() {
        assert_eq!(parse_range("bytes=0-9", 100), Wanted::Part { first: 0, length: 10 });
        assert_eq!(parse_range("bytes=90-999", 100), Wanted::Part { first: 90, length: 10 });
        assert_eq!(parse_range("bytes=90-", 100), Wanted::Part { first: 90, length: 10 });
        assert_eq!(parse_range("bytes=-5", 100), Wanted::Part { first: 95, length: 5 });
        assert_eq!(parse_range("bytes=-500", 100), Wanted::Part { first: 0, length: 100 });
    }

    #[test]
    fn ranges_outside_the_file_are_refused() {
        assert_eq!(parse_range("bytes=100-", 100), Wanted::NotInFile);
        assert_eq!(parse_range("bytes=-0", 100), Wanted::NotInFile);
        assert_eq!(parse_range("bytes=0-", 0), Wanted::NotInFile);
    }

    #[test]
    fn what_is_not_understood_gives_the_whole_file() {
        for header in ["bytes=0-1,4-5", "lines=0-1", "bytes=9-1", "bytes=x-y", "bytes"] {
            assert_eq!(parse_range(header, 100), Wanted::Whole, "{header}");
        }
    }
}
