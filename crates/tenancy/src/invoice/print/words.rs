//! The words on a printed invoice, in each language.

use crate::invoice::item::{Class, Kind, Unit};

/// A language that invoices are printed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    /// English.
    #[default]
    English,
    /// Simplified Chinese.
    Chinese,
}

/// One text in each language.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words {
    english: &'static str,
    chinese: &'static str,
}

const fn words(english: &'static str, chinese: &'static str) -> Words {
    Words { english, chinese }
}

pub(super) const INVOICE: Words = words("Invoice", "账单");
pub(super) const DRAFT: Words = words("Draft: not issued", "草稿（尚未开具）");
pub(super) const TENANT: Words = words("Billed to", "租户");
pub(super) const NUMBER: Words = words("Number", "编号");
pub(super) const PERIOD: Words = words("Period", "账期");
pub(super) const ISSUED: Words = words("Issued", "开具日期");
pub(super) const CURRENCY: Words = words("Currency", "币种");
pub(super) const TOTAL: Words = words("Total", "合计");
pub(super) const LINE: Words = words("Line", "行");
pub(super) const DESCRIPTION: Words = words("Description", "项目");
pub(super) const QUANTITY: Words = words("Quantity", "数量");
pub(super) const UNIT_PRICE: Words = words("Unit price", "单价");
pub(super) const AMOUNT: Words = words("Amount", "金额");
pub(super) const EXACT: Words = words("Before rounding", "舍入前合计");
pub(super) const EARLIER: Words = words("from the period of", "补记自账单");
pub(super) const PAYMENTS: Words = words("Payments and credit", "付款与赠送");
pub(super) const DATE: Words = words("Date", "日期");
pub(super) const NOTE: Words = words("Note", "备注");
pub(super) const ACCOUNT: Words = words("Account", "账户");
pub(super) const BEFORE: Words = words("Balance before", "上期余额");
pub(super) const PAID: Words = words("Paid in", "充值");
pub(super) const GRANTED: Words = words("Credit given", "赠送");
pub(super) const BILLED: Words = words("This invoice", "本期账单");
pub(super) const AFTER: Words = words("Balance after", "本期余额");
pub(super) const USAGE: Words = words("Usage", "用量");
pub(super) const MONTH: Words = words("Month", "月份");
pub(super) const MODEL: Words = words("Model", "模型");
pub(super) const CALLS: Words = words("Calls", "调用次数");
pub(super) const ESTIMATED: Words = words("estimated", "估算");
pub(super) const INPUT: Words = words("Tokens read", "输入 token");
pub(super) const OUTPUT: Words = words("Tokens generated", "输出 token");
pub(super) const INCLUDED_OF: Words = words("of", "/");
pub(super) const PLAN: Words = words("plan", "套餐");
pub(super) const TIMES: Words = words(
    "Days are those of UTC. Each line is rounded once, half to even; a balance below zero is owed.",
    "日期均为 UTC。每行金额仅舍入一次（四舍六入五成双）；余额为负表示应付。",
);

const KINDS: [(Kind, Words); 6] = [
    (Kind::Fee, words("Monthly fee", "月费")),
    (Kind::Included, words("Included tokens", "套餐内 token")),
    (Kind::Overage, words("Tokens beyond those included", "超出套餐的 token")),
    (Kind::Usage, words("Usage", "用量")),
    (Kind::Adjustment, words("Adjustment", "调整")),
    (Kind::Correction, words("Correction", "冲正")),
];

const CLASSES: [(Class, Words); 10] = [
    (Class::Input, words("tokens read", "输入 token")),
    (Class::Cached, words("tokens read from cache", "缓存命中输入 token")),
    (Class::CacheWrite, words("tokens written to cache", "缓存写入 token")),
    (Class::AudioInput, words("audio tokens read", "音频输入 token")),
    (Class::Output, words("tokens generated", "输出 token")),
    (Class::Reasoning, words("reasoning tokens", "推理 token")),
    (Class::AudioOutput, words("audio tokens generated", "音频输出 token")),
    (Class::Images, words("images", "图片")),
    (Class::Gpu, words("GPU time", "GPU 时间")),
    (Class::Calls, words("answered calls", "成功调用")),
];

const CAUSES: [(&str, Words); 3] = [
    ("top_up", words("Payment", "充值")),
    ("grant", words("Credit", "赠送")),
    ("reversal", words("Taken back", "撤回")),
];

// === impl Language ===

impl Language {
    /// Reads `en`, `zh` and longer tags that begin so, as in `zh-CN`.
    pub fn parse(tag: &str) -> Option<Self> {
        match tag.split(['-', '_']).next()?.to_ascii_lowercase().as_str() {
            "en" => Some(Self::English),
            "zh" => Some(Self::Chinese),
            _ => None,
        }
    }

    /// Its tag, as HTML wants it.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Chinese => "zh-CN",
        }
    }

    pub(super) const fn say(self, words: Words) -> &'static str {
        match self {
            Self::English => words.english,
            Self::Chinese => words.chinese,
        }
    }

    pub(super) fn kind(self, kind: Kind) -> &'static str {
        KINDS.iter().find(|(known, _)| *known == kind).map_or("", |(_, words)| self.say(*words))
    }

    pub(super) fn class(self, class: Class) -> &'static str {
        CLASSES.iter().find(|(known, _)| *known == class).map_or("", |(_, words)| self.say(*words))
    }

    pub(super) fn cause(self, cause: &str) -> &str {
        CAUSES.iter().find(|(known, _)| *known == cause).map_or(cause, |(_, words)| self.say(*words))
    }

    /// Of what a quantity is, and for how much of it a unit price.
    pub(super) const fn unit(self, unit: Unit) -> &'static str {
        let words = match unit {
            Unit::Token => words("tokens", "token"),
            Unit::Image => words("images", "张"),
            Unit::GpuMillisecond => words("GPU seconds", "GPU 秒"),
            Unit::Call => words("calls", "次"),
            Unit::Day => words("days", "天"),
            Unit::None => words("", ""),
        };
        self.say(words)
    }
}
