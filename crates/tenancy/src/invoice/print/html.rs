//! An invoice as one HTML page that needs nothing else, and prints on A4.

use std::fmt::Write;

use kernel::{Currency, Money, Timestamp};

use super::words::{self, Language};
use crate::invoice::item::{Kind, Unit};
use crate::invoice::{Day, Invoice, Line};

/// What a browser needs to know: no scripts, no pictures, no fonts from elsewhere.
const STYLE: &str = include_str!("invoice.css");

/// The page.
pub fn html(invoice: &Invoice, language: Language) -> String {
    let page = Page { invoice, language };
    let title = invoice.id.as_deref().unwrap_or_else(|| language.say(words::DRAFT));
    let mut out = format!(
        "<!doctype html>\n<html lang=\"{}\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{} {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n",
        language.tag(),
        language.say(words::INVOICE),
        escape(title),
    );
    page.head(&mut out);
    page.lines(&mut out);
    page.payments(&mut out);
    page.account(&mut out);
    page.usage(&mut out);
    put(&mut out, format_args!("<footer>{}</footer>\n</main>\n</body>\n</html>\n", language.say(words::TIMES)));
    out
}

struct Page<'a> {
    invoice: &'a Invoice,
    language: Language,
}

impl Page<'_> {
    fn head(&self, out: &mut String) {
        let (invoice, say) = (self.invoice, |words| self.language.say(words));
        let (number, issued) = match (&invoice.id, invoice.issued) {
            (Some(id), Some(at)) => (escape(id), Day::of(Timestamp(at)).to_string()),
            _ => (say(words::DRAFT).to_owned(), "–".to_owned()),
        };
        put(
            out,
            format_args!(
                "<header><h1>{}</h1><p class=\"total\">{}<b>{}</b></p></header>\n<dl>\n",
                say(words::INVOICE),
                say(words::TOTAL),
                self.money(invoice.total)
            ),
        );
        let days = last_day(invoice);
        let rows = [
            (words::NUMBER, number),
            (words::TENANT, escape(&invoice.tenant)),
            (words::PERIOD, format!("{} – {days}", invoice.from)),
            (words::ISSUED, issued),
            (words::CURRENCY, invoice.currency.as_str().to_ascii_uppercase()),
        ];
        for (name, value) in rows {
            put(out, format_args!("<div><dt>{}</dt><dd>{value}</dd></div>\n", say(name)));
        }
        out.push_str("</dl>\n");
    }

    fn lines(&self, out: &mut String) {
        let say = |words| self.language.say(words);
        out.push_str("<table class=\"lines\">\n<thead><tr>");
        for (name, class) in [
            (words::LINE, "n"),
            (words::DESCRIPTION, ""),
            (words::QUANTITY, "r"),
            (words::UNIT_PRICE, "r"),
            (words::AMOUNT, "r"),
        ] {
            put(out, format_args!("<th class=\"{class}\">{}</th>", say(name)));
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        for line in &self.invoice.lines {
            put(
                out,
                format_args!(
                    "<tr><td class=\"n\">{}</td><td>{}</td><td class=\"r\">{}</td><td class=\"r\">{}</td><td class=\"r\">{}</td></tr>\n",
                    line.line,
                    self.about(line),
                    self.quantity(line),
                    self.unit_price(line),
                    fixed(line.amount, self.invoice.currency),
                ),
            );
        }
        put(
            out,
            format_args!(
                "</tbody>\n<tfoot><tr><td></td><td colspan=\"3\">{}</td><td class=\"r\">{}</td></tr>\n\
                 <tr class=\"exact\"><td></td><td colspan=\"3\">{}</td><td class=\"r\">{}</td></tr></tfoot>\n</table>\n",
                say(words::TOTAL),
                self.money(self.invoice.total),
                say(words::EXACT),
                self.invoice.exact,
            ),
        );
    }

    /// What a line is about: its model and class, or its kind; below it the ids it can be followed by.
    fn about(&self, line: &Line) -> String {
        let (item, language) = (&line.item, self.language);
        let kind = language.kind(item.kind);
        let class = item.class.map(|class| language.class(class));
        let what = match (item.kind, &item.model, class) {
            (Kind::Usage, Some(model), Some(class)) => format!("<b>{}</b>, {class}", escape(model)),
            (_, Some(model), Some(class)) => format!("{kind}: <b>{}</b>, {class}", escape(model)),
            (_, Some(model), None) => format!("{kind}: <b>{}</b>", escape(model)),
            (_, None, _) => kind.to_owned(),
        };
        let mut below = vec![item.month.to_string()];
        if let Some(plan) = &item.plan {
            below.push(format!("{} {}", language.say(words::PLAN), escape(plan)));
        }
        below.extend(item.price.iter().chain(&item.transfer).map(|id| escape(id)));
        if let Some(earlier) = &item.earlier {
            below.push(format!("{} {}", language.say(words::EARLIER), escape(earlier)));
        }
        format!("{what}<small>{}</small>", below.join(" · "))
    }

    fn quantity(&self, line: &Line) -> String {
        let count = &line.count;
        let number = match count.unit {
            Unit::None => return String::new(),
            Unit::GpuMillisecond => seconds(count.quantity),
            _ => grouped(count.quantity),
        };
        let of = count
            .of
            .map_or_else(String::new, |of| format!(" {} {}", self.language.say(words::INCLUDED_OF), grouped(of)));
        format!("{number}{of}<small>{}</small>", self.language.unit(count.unit))
    }

    fn unit_price(&self, line: &Line) -> String {
        let count = &line.count;
        let per = match count.unit {
            Unit::None => return String::new(),
            Unit::GpuMillisecond => count.per / 1000,
            _ => count.per,
        };
        if line.item.kind == Kind::Included {
            return "–".into();
        }
        format!("{}<small>/ {} {}</small>", count.unit_price, grouped(per), self.language.unit(count.unit))
    }

    fn payments(&self, out: &mut String) {
        if self.invoice.payments.is_empty() {
            return;
        }
        let say = |words| self.language.say(words);
        put(
            out,
            format_args!(
                "<h2>{}</h2>\n<table>\n<thead><tr><th>{}</th><th>{}</th><th>{}</th><th class=\"r\">{}</th></tr></thead>\n<tbody>\n",
                say(words::PAYMENTS),
                say(words::DATE),
                say(words::DESCRIPTION),
                say(words::NOTE),
                say(words::AMOUNT),
            ),
        );
        for payment in &self.invoice.payments {
            put(
                out,
                format_args!(
                    "<tr><td>{}</td><td>{}</td><td>{}</td><td class=\"r\">{}</td></tr>\n",
                    payment.day,
                    escape(self.language.cause(&payment.cause)),
                    escape(payment.note.as_deref().unwrap_or_default()),
                    fixed(payment.amount, self.invoice.currency),
                ),
            );
        }
        out.push_str("</tbody>\n</table>\n");
    }

    fn account(&self, out: &mut String) {
        let (statement, say) = (&self.invoice.statement, |words| self.language.say(words));
        put(out, format_args!("<h2>{}</h2>\n<table class=\"account\">\n<tbody>\n", say(words::ACCOUNT)));
        let rows = [
            (words::BEFORE, statement.before),
            (words::PAID, statement.paid),
            (words::GRANTED, statement.granted),
            (words::BILLED, -statement.billed),
            (words::AFTER, statement.after),
        ];
        for (name, amount) in rows {
            put(out, format_args!("<tr><td>{}</td><td class=\"r\">{}</td></tr>\n", say(name), self.money(amount)));
        }
        out.push_str("</tbody>\n</table>\n");
    }

    fn usage(&self, out: &mut String) {
        if self.invoice.usage.is_empty() {
            return;
        }
        let say = |words| self.language.say(words);
        put(
            out,
            format_args!(
                "<h2>{}</h2>\n<table>\n<thead><tr><th>{}</th><th>{}</th>",
                say(words::USAGE),
                say(words::MONTH),
                say(words::MODEL)
            ),
        );
        for name in [words::CALLS, words::INPUT, words::OUTPUT] {
            put(out, format_args!("<th class=\"r\">{}</th>", say(name)));
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        for usage in &self.invoice.usage {
            let estimated = (usage.estimated > 0)
                .then(|| format!("<small>{} {}</small>", grouped(usage.estimated), say(words::ESTIMATED)));
            let earlier =
                usage.earlier.as_ref().map(|id| format!("<small>{} {}</small>", say(words::EARLIER), escape(id)));
            put(
                out,
                format_args!(
                    "<tr><td>{}</td><td><b>{}</b>{}</td><td class=\"r\">{}{}</td><td class=\"r\">{}</td><td class=\"r\">{}</td></tr>\n",
                    usage.month,
                    escape(usage.model.as_deref().unwrap_or_default()),
                    earlier.unwrap_or_default(),
                    grouped(usage.calls),
                    estimated.unwrap_or_default(),
                    grouped(usage.input_tokens),
                    grouped(usage.output_tokens),
                ),
            );
        }
        out.push_str("</tbody>\n</table>\n");
    }

    fn money(&self, amount: Money) -> String {
        let currency = self.invoice.currency;
        format!("{} {}", fixed(amount, currency), currency.as_str().to_ascii_uppercase())
    }
}

fn put(out: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing into a string cannot fail.
    let _ = out.write_fmt(what);
}

/// Text as HTML shows it, wherever it stands.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            letter => out.push(letter),
        }
    }
    out
}

/// With all decimals of the currency, thousands apart. What cannot be paid is shown as it is.
fn fixed(amount: Money, currency: Currency) -> String {
    let text = amount.to_string();
    let (sign, size) = text.strip_prefix('-').map_or(("", text.as_str()), |size| ("−", size));
    let (whole, part) = size.split_once('.').unwrap_or((size, ""));
    let decimals = currency.decimals() as usize;
    let whole = whole.parse().map_or_else(|_| whole.to_owned(), grouped);
    if decimals == 0 && part.is_empty() {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{part:0<decimals$}")
    }
}

/// Thousands apart, by a narrow space that does not break.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 2);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

fn seconds(millis: u64) -> String {
    format!("{}.{:03}", grouped(millis / 1000), millis % 1000)
}

/// People read periods with their last day, not with the one after it.
fn last_day(invoice: &Invoice) -> Day {
    invoice.period().days().last().unwrap_or(invoice.from)
}
