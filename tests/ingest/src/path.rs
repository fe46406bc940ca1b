//! The path a publisher asks for, and the names MediaMTX allows.

/// MediaMTX joins tcUrl and stream name as text and parses the result as one URL.
pub(crate) fn path_and_query(tc_url: &str, stream: &str) -> (String, String) {
    let mut url = tc_url.to_owned();
    if !stream.is_empty() && !stream.starts_with('?') {
        url.push('/');
    }
    url.push_str(stream);
    let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = before.find('/').and_then(|slash| before.get(slash..)).unwrap_or("");
    (path.trim_start_matches('/').to_owned(), query.to_owned())
}

/// Why MediaMTX would not take this path name.
pub(crate) fn check(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("it is empty");
    }
    if path.ends_with('/') {
        return Err("it ends with a slash");
    }
    if !path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-/".contains(&byte)) {
        return Err("only letters, digits, _ . - and / are allowed");
    }
    if path.split('/').any(|segment| segment == "." || segment == "..") {
        return Err("it has a segment . or ..");
    }
    Ok(())
}
