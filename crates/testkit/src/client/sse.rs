//! Server-sent events, read the way a client reads them.

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// The `event:` field, if there was one.
    pub name: Option<String>,
    /// The `data:` lines, joined.
    pub data: String,
}

impl Event {
    /// The data as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.data).unwrap_or_else(|fault| panic!("{fault} in the event {:?}", self.data))
    }
}

/// All whole events in these bytes; comments and whatever follows the last empty line are passed over.
#[must_use]
pub fn sse_events(bytes: &[u8]) -> Vec<Event> {
    let mut rest = bytes;
    let mut events = Vec::new();
    while let Some(used) = event_end(rest, 0) {
        events.extend(parse(&rest[..used]));
        rest = &rest[used..];
    }
    events
}

/// Where the first empty line ends, searching from `from` on (where no end was seen before).
pub(super) fn event_end(bytes: &[u8], from: usize) -> Option<usize> {
    // Up to three bytes of the line end may have been looked at already.
    let mut line_start = bytes[..from.min(bytes.len())].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    while let Some(length) = bytes[line_start..].iter().position(|byte| *byte == b'\n') {
        let line = &bytes[line_start..line_start + length];
        line_start += length + 1;
        if line.is_empty() || line == b"\r" {
            return Some(line_start);
        }
    }
    None
}

/// The event in these lines; `None` for comments alone.
pub(super) fn parse(lines: &[u8]) -> Option<Event> {
    let text = String::from_utf8_lossy(lines);
    let (mut data, mut name) = (Vec::new(), None);
    for line in text.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => data.push(value),
            "event" => name = Some(value.to_owned()),
            _ => {}
        }
    }
    (!data.is_empty() || name.is_some()).then(|| Event { name, data: data.join("\n") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_through_comments_line_ends_and_fields_without_a_space() {
        let text = b": hi\n\ndata: a\ndata:b\n\nevent: error\r\ndata: {}\r\n\r\ndata: cut";
        let events = sse_events(text);
        assert_eq!(events.len(), 2);
        assert_eq!(events[0].data, "a\nb");
        assert_eq!((events[1].name.as_deref(), events[1].data.as_str()), (Some("error"), "{}"));
    }
}
