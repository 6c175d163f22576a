//! What is printed: every line, in every form, and nobody's markup.

use kernel::{Currency, Money};

use super::{Language, csv, html};
use crate::invoice::tests::wait;
use crate::invoice::tests::world::{World, at, month};
use crate::invoice::{Invoice, Kind};

fn sample() -> Invoice {
    let mut world = World::new(3);
    wait(async {
        world.calls(200, month("2026-11")).await;
        let issued = world.books.issue(&world.tenant, month("2026-11"), Some(Currency::USD), at("2026-12-01")).await;
        issued.unwrap().unwrap().invoice
    })
}

#[test]
fn every_line_stands_in_the_table_and_comes_to_the_total() {
    let invoice = sample();
    let csv = csv(&invoice);
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    let column = |name: &str| rows[0].iter().position(|head| *head == name).unwrap();
    assert_eq!(rows.len(), invoice.lines.len() + 1);
    let amount = column("amount");
    let total: Money = rows.iter().skip(1).map(|row| Money::parse(row[amount]).unwrap()).sum();
    assert_eq!(total, invoice.total);
    assert!(rows.iter().all(|row| row.len() == rows[0].len()));
}

#[test]
fn every_line_stands_on_the_page_in_both_languages() {
    let invoice = sample();
    for (language, words) in [(Language::English, "Total"), (Language::Chinese, "合计")] {
        let page = html(&invoice, language);
        assert_eq!(page.matches("<tr><td class=\"n\">").count(), invoice.lines.len());
        assert!(page.contains(words) && page.contains("acme-0001") && page.contains("2026-11-30"), "{page}");
        for part in ["http", "<script", "url(", "import"] {
            assert!(!page.contains(part), "a page needs nothing from elsewhere: {part}");
        }
    }
    assert_eq!(
        (Language::parse("zh-Hans-CN"), Language::parse("en_US"), Language::parse("de")),
        (Some(Language::Chinese), Some(Language::English), None)
    );
}

#[test]
fn names_are_text_whatever_is_in_them() {
    let mut invoice = sample();
    let nasty = "<img src=x onerror=alert(1)>&\"'";
    invoice.tenant = nasty.into();
    invoice.id = Some(nasty.into());
    for line in &mut invoice.lines {
        let item = &mut line.item;
        (item.model, item.plan, item.price) = (Some(nasty.into()), Some(nasty.into()), Some(nasty.into()));
        item.earlier = Some(nasty.into());
    }
    for usage in &mut invoice.usage {
        (usage.model, usage.earlier) = (Some(nasty.into()), Some(nasty.into()));
    }
    let page = html(&invoice, Language::English);
    assert!(
        !page.contains("<img")
            && !page.contains("&\"")
            && page.contains("&lt;img src=x onerror=alert(1)&gt;&amp;&quot;&#39;")
    );
}

#[test]
fn a_draft_says_so() {
    let mut invoice = sample();
    (invoice.id, invoice.issued) = (None, None);
    assert!(html(&invoice, Language::English).contains("Draft: not issued"));
    assert!(csv(&invoice).contains("\r\ndraft,acme,"));
    assert!(invoice.lines.iter().any(|line| line.item.kind == Kind::Usage));
}
