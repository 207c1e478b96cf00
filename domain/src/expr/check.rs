//! From text to a syntax tree that is safe to run: names are known, loops are charged, labels have their default.

use std::collections::BTreeSet;

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SourceInfo, operators};

use super::error::unknown;
use super::{ExprError, runtime};

/// How deep ranges may nest.
const MAX_NESTING: usize = 2;
/// How deep the tree may be. A sum of n terms is n deep; `&&` and `||` are balanced and count little. Evaluation takes up to 40 KiB of stack for
/// each level (unoptimised), on whatever thread it runs.
const MAX_DEPTH: usize = 24;
const TOO_DEEP: &str = "the expression nests too deep or chains too many operators: split it";
/// Stack for parsing, in bytes. The parser also recurses for each level and meets the text before its depth is known.
const PARSER_STACK: usize = 64 * 1024 * 1024;
/// Compiled size of a literal regular expression, in bytes.
const REGEX_LIMIT: usize = 256 * 1024;

/// Maps of text to text, in which an absent key is the empty string.
const LABEL_MAPS: [&str; 8] =
    ["labels", "annotations", "groupLabels", "commonLabels", "commonAnnotations", "group_labels", "common_labels", "common_annotations"];

/// Type names, which CEL treats as values: `type(x) == string`.
const TYPES: [&str; 10] = ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];

/// CEL's standard functions and macros as far as they are offered. <https://github.com/google/cel-spec/blob/master/doc/langdef.md>
pub(super) const FUNCTIONS: [&str; 38] = [
    "all",
    "bool",
    "bytes",
    "contains",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "exists",
    "exists_one",
    "filter",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "has",
    "hasValue",
    "int",
    "map",
    "matches",
    "none",
    "of",
    "ofNonZeroValue",
    "or",
    "orValue",
    "size",
    "startsWith",
    "string",
    "timestamp",
    "type",
    "uint",
    "value",
];

/// The checked tree and the variables it uses, sorted.
///
/// # Errors
/// See [`super::Expr::compile`].
pub(super) fn compile(text: &str, allowed: &[&str]) -> Result<(IdedExpr, Vec<String>), ExprError> {
    let broken = || ExprError::at(text, 0, "the parser gave up on this expression: write it in a simpler way");
    std::thread::scope(|scope| {
        let parser = std::thread::Builder::new().name("expr".into()).stack_size(PARSER_STACK);
        let checked = parser.spawn_scoped(scope, || parse_and_check(text, allowed)).map_err(|_| broken())?;
        checked.join().unwrap_or_else(|_| Err(broken()))
    })
}

fn parse_and_check(text: &str, allowed: &[&str]) -> Result<(IdedExpr, Vec<String>), ExprError> {
    let parser = runtime::ENV.parser().enable_ident_escape_syntax(true);
    let (mut tree, places) = parser.parse_with_source_info(text).map_err(|e| syntax(text, &e))?;
    let mut checker = Checker { text, places, allowed, scopes: Vec::new(), used: BTreeSet::new(), nesting: 0, depth: 0 };
    checker.walk(&mut tree)?;
    Ok((tree, checker.used.into_iter().collect()))
}

fn syntax(text: &str, errors: &cel::ParseErrors) -> ExprError {
    let Some(first) = errors.errors.first() else {
        return ExprError::at(text, 0, "this is not an expression");
    };
    // The parser counts columns of its own errors from 1, lines as well; a place it does not know is 0.
    let (line, column) = (first.pos.0.max(1) as usize, first.pos.1.max(1) as usize);
    let message = match first.msg.contains("Recursion limit") {
        true => TOO_DEEP,
        false => first.msg.strip_prefix("Syntax error: ").unwrap_or(&first.msg),
    };
    ExprError::on_line(text, line, column, crate::text::clean_line(message, 200))
}

struct Checker<'a> {
    text: &'a str,
    places: SourceInfo,
    allowed: &'a [&'a str],
    /// Variables of the ranges around the place.
    scopes: Vec<String>,
    used: BTreeSet<String>,
    nesting: usize,
    depth: usize,
}

impl Checker<'_> {
    fn walk(&mut self, node: &mut IdedExpr) -> Result<(), ExprError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(node.id, TOO_DEEP));
        }
        self.node(node)?;
        self.depth -= 1;
        Ok(())
    }

    fn node(&mut self, node: &mut IdedExpr) -> Result<(), ExprError> {
        let id = node.id;
        match &mut node.expr {
            Expr::Unspecified => return Err(self.error(id, "this is not an expression")),
            Expr::Literal(_) => {}
            Expr::Ident(name) => {
                let name = name.clone();
                self.variable(id, &name)?;
            }
            Expr::Select(select) => {
                self.walk(&mut select.operand)?;
                if !select.test && is_label_map(&select.operand) {
                    let key = literal(id, &select.field);
                    let map = std::mem::take(&mut *select.operand);
                    node.expr = call(runtime::LOOKUP, vec![map, key]);
                }
            }
            Expr::Call(call) => self.call(id, call)?,
            Expr::List(list) => list.elements.iter_mut().try_for_each(|item| self.walk(item))?,
            Expr::Map(map) => {
                for entry in &mut map.entries {
                    match &mut entry.expr {
                        EntryExpr::MapEntry(entry) => {
                            self.walk(&mut entry.key)?;
                            self.walk(&mut entry.value)?;
                        }
                        EntryExpr::StructField(_) => return Err(self.error(id, "messages are not offered: use a map")),
                    }
                }
            }
            Expr::Struct(_) => return Err(self.error(id, "messages are not offered: use a map")),
            Expr::Comprehension(range) => self.range(id, range)?,
        }
        Ok(())
    }

    fn call(&mut self, id: u64, call: &mut CallExpr) -> Result<(), ExprError> {
        if call.func_name.starts_with(|c: char| c.is_alphabetic()) && !FUNCTIONS.contains(&call.func_name.as_str()) {
            return Err(self.error(id, unknown("function", &call.func_name, &FUNCTIONS)));
        }
        if call.func_name == "matches" {
            self.literal_regex(id, call)?;
        }
        if let Some(target) = &mut call.target {
            // `optional.of(x)`: a namespace, not a variable.
            let namespace = matches!(&target.expr, Expr::Ident(name) if name == "optional");
            if !namespace {
                self.walk(target)?;
            }
        }
        call.args.iter_mut().try_for_each(|arg| self.walk(arg))?;
        if call.func_name == operators::INDEX && call.args.first().is_some_and(is_label_map) {
            call.func_name = runtime::LOOKUP.to_owned();
        }
        Ok(())
    }

    /// Every macro that loops is one of these after parsing.
    fn range(&mut self, id: u64, range: &mut ComprehensionExpr) -> Result<(), ExprError> {
        self.walk(&mut range.iter_range)?;
        self.walk(&mut range.accu_init)?;
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(self.error(id, "ranges nest more than two deep: split the expression"));
        }
        let outer = self.scopes.len();
        self.scopes.push(range.accu_var.clone());
        // The accumulator alone is in scope of the result.
        self.walk(&mut range.result)?;
        self.scopes.push(range.iter_var.clone());
        self.scopes.extend(range.iter_var2.clone());
        self.walk(&mut range.loop_cond)?;
        self.walk(&mut range.loop_step)?;
        self.scopes.truncate(outer);
        self.nesting -= 1;
        let data = std::mem::take(&mut range.iter_range);
        range.iter_range = IdedExpr { id: data.id, expr: call(runtime::CHARGE, vec![data]) };
        Ok(())
    }

    /// A pattern from a label could be made to take long to compile.
    fn literal_regex(&self, id: u64, call: &CallExpr) -> Result<(), ExprError> {
        match call.args.last().map(|arg| &arg.expr) {
            Some(Expr::Literal(LiteralValue::String(pattern))) => {
                let compiled = regex::RegexBuilder::new(pattern.inner()).size_limit(REGEX_LIMIT).build();
                compiled.map(|_| ()).map_err(|e| {
                    let why = e.to_string();
                    self.error(id, format!("the regular expression does not compile: {}", why.lines().last().unwrap_or_default()))
                })
            }
            _ => Err(self.error(id, "`matches` takes a literal regular expression: use contains, startsWith or == with data")),
        }
    }

    fn variable(&mut self, id: u64, name: &str) -> Result<(), ExprError> {
        if self.scopes.iter().any(|inner| inner == name) {
            return Ok(());
        }
        if self.allowed.contains(&name) {
            self.used.insert(name.to_owned());
            return Ok(());
        }
        if TYPES.contains(&name) {
            return Ok(());
        }
        Err(self.error(id, unknown("variable", name, self.allowed)))
    }

    fn error(&self, id: u64, message: impl Into<String>) -> ExprError {
        let offset = self.places.offset_for(id).map_or(0, |(start, _)| start as usize);
        ExprError::at(self.text, offset, message)
    }
}

fn is_label_map(node: &IdedExpr) -> bool {
    let name = match &node.expr {
        Expr::Ident(name) => name.as_str(),
        Expr::Select(select) if !select.test => select.field.as_str(),
        Expr::Call(call) if call.func_name == operators::INDEX => match call.args.get(1).map(|key| &key.expr) {
            Some(Expr::Literal(LiteralValue::String(name))) => name.inner(),
            _ => return false,
        },
        _ => return false,
    };
    LABEL_MAPS.contains(&name)
}

fn literal(id: u64, text: &str) -> IdedExpr {
    IdedExpr { id, expr: Expr::Literal(LiteralValue::String(text.to_owned().into())) }
}

fn call(name: &str, args: Vec<IdedExpr>) -> Expr {
    Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args })
}
