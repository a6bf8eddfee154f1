//! From either encoding to a filter. Limits are heeded while reading, so that nothing is built that
//! is then thrown away.

use std::fmt;
use std::sync::Arc;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess,
    Visitor,
};

use super::number::Decimal;
use super::{Comparison, Filter, FilterError, FilterLimits, Node, RawFilter, Relation};
use crate::json::Str;
use crate::message::Text;
use crate::protobuf::Reader;

impl RawFilter<'_> {
    /// Looks into the filter.
    ///
    /// # Errors
    ///
    /// What is wrong with it, or which limit it exceeds.
    pub fn parse(&self, limits: &FilterLimits) -> Result<Filter, FilterError> {
        let found = match self {
            Self::Json(text) => text.len(),
            Self::Protobuf(bytes) => bytes.len(),
        };
        if found > limits.max_size {
            let limit = limits.max_size;
            return Err(FilterError::TooLarge { found, limit });
        }
        let mut budget = Budget::new(limits);
        let root = match self {
            Self::Json(text) => {
                let mut deserializer = serde_json::Deserializer::from_str(text);
                let node = NodeSeed {
                    budget: &mut budget,
                    depth: 1,
                };
                let node = node.deserialize(&mut deserializer);
                let node = node.and_then(|node| deserializer.end().map(|()| node));
                node.map_err(|error| budget.refused.unwrap_or(FilterError::Syntax(error)))?
            }
            Self::Protobuf(bytes) => read_node(bytes, &mut budget, 1)?,
        };
        Ok(Filter(Arc::new(root)))
    }
}

/// In configurations and the like: the form that JSON has, with the limits' defaults but for the
/// size.
impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut budget = Budget::new(&FilterLimits::default());
        let node = NodeSeed {
            budget: &mut budget,
            depth: 1,
        };
        let root = node.deserialize(deserializer);
        match (root, budget.refused) {
            (Ok(root), _) => Ok(Self(Arc::new(root))),
            (Err(_), Some(refused)) => Err(D::Error::custom(refused)),
            (Err(error), None) => Err(error),
        }
    }
}

/// What a filter may still use up.
struct Budget {
    limits: FilterLimits,
    nodes: usize,
    values: usize,
    /// Why reading was given up: serde's errors are made of text.
    refused: Option<FilterError>,
}

impl Budget {
    fn new(limits: &FilterLimits) -> Self {
        Self {
            limits: *limits,
            nodes: limits.max_nodes,
            values: limits.max_values,
            refused: None,
        }
    }

    fn enter(&mut self, depth: usize) -> Result<(), FilterError> {
        if depth > self.limits.max_depth {
            let limit = self.limits.max_depth;
            return Err(FilterError::TooDeep { limit });
        }
        let limit = self.limits.max_nodes;
        self.nodes = self
            .nodes
            .checked_sub(1)
            .ok_or(FilterError::TooManyNodes { limit })?;
        Ok(())
    }

    fn take_value(&mut self) -> Result<(), FilterError> {
        let limit = self.limits.max_values;
        self.values = self
            .values
            .checked_sub(1)
            .ok_or(FilterError::TooManyValues { limit })?;
        Ok(())
    }

    /// Gives up, as far as serde is concerned.
    fn refuse<E: serde::de::Error>(&mut self, error: FilterError) -> E {
        let text = E::custom(&error);
        self.refused = Some(error);
        text
    }
}

/// A node as it is read; what is below it is finished.
#[derive(Default)]
struct Draft<'a> {
    op: Text<'a>,
    key: Text<'a>,
    cmp: Text<'a>,
    val: Text<'a>,
    vals: Vec<Text<'a>>,
    nodes: Vec<Node>,
}

impl Draft<'_> {
    fn finish(self) -> Result<Node, FilterError> {
        match &*self.op {
            "" => self.finish_leaf(),
            "and" if self.nodes.is_empty() => Err(FilterError::NoNodes { op: "and" }),
            "and" => Ok(Node::And(self.nodes.into())),
            "or" if self.nodes.is_empty() => Err(FilterError::NoNodes { op: "or" }),
            "or" => Ok(Node::Or(self.nodes.into())),
            "not" => {
                let found = self.nodes.len();
                match <[Node; 1]>::try_from(self.nodes) {
                    Ok([node]) => Ok(Node::Not(Box::new(node))),
                    Err(_) => Err(FilterError::NotOne { found }),
                }
            }
            unknown => Err(FilterError::UnknownOp(excerpt(unknown))),
        }
    }

    fn finish_leaf(self) -> Result<Node, FilterError> {
        let one = |cmp, comparison: fn(Box<str>) -> Comparison| {
            if self.val.is_empty() || !self.vals.is_empty() {
                let expected = "a val that is not empty, and no vals";
                return Err(FilterError::Operands { cmp, expected });
            }
            Ok((cmp, comparison((&*self.val).into())))
        };
        let many = |cmp, comparison: fn(Box<[Box<str>]>) -> Comparison| {
            if self.vals.is_empty() || !self.val.is_empty() {
                let expected = "vals with at least one entry, and no val";
                return Err(FilterError::Operands { cmp, expected });
            }
            let mut values: Vec<Box<str>> =
                self.vals.iter().map(|value| (&**value).into()).collect();
            values.sort_unstable();
            values.dedup();
            Ok((cmp, comparison(values.into())))
        };
        let none = |cmp, comparison| {
            if !self.val.is_empty() || !self.vals.is_empty() {
                let expected = "neither val nor vals";
                return Err(FilterError::Operands { cmp, expected });
            }
            Ok((cmp, comparison))
        };
        let (cmp, comparison) = match &*self.cmp {
            "" => return Err(FilterError::NoComparison),
            "eq" => one("eq", Comparison::Equal)?,
            "neq" => one("neq", Comparison::NotEqual)?,
            "in" => many("in", Comparison::In)?,
            "nin" => many("nin", Comparison::NotIn)?,
            "ex" => none("ex", Comparison::Exists)?,
            "nex" => none("nex", Comparison::NotExists)?,
            "sw" => one("sw", Comparison::StartsWith)?,
            "ew" => one("ew", Comparison::EndsWith)?,
            "ct" => one("ct", Comparison::Contains)?,
            "gt" => one("gt", |value| number(Relation::Greater, &value))?,
            "gte" => one("gte", |value| number(Relation::GreaterOrEqual, &value))?,
            "lt" => one("lt", |value| number(Relation::Less, &value))?,
            "lte" => one("lte", |value| number(Relation::LessOrEqual, &value))?,
            unknown => return Err(FilterError::UnknownComparison(excerpt(unknown))),
        };
        // The protocol's other servers let existence be asked of the tag without a name.
        if self.key.is_empty() && !matches!(comparison, Comparison::Exists | Comparison::NotExists)
        {
            return Err(FilterError::NoKey { cmp });
        }
        Ok(Node::Leaf((&*self.key).into(), comparison))
    }
}

fn number(relation: Relation, value: &str) -> Comparison {
    Decimal::parse(value).map_or(Comparison::Never, |value| {
        Comparison::Number(relation, value)
    })
}

/// Enough of a word to recognise it by.
fn excerpt(text: &str) -> String {
    text[..text.floor_char_boundary(32)].to_owned()
}

/// Reads a Protobuf node. Recurses as deep as the limits allow.
fn read_node(bytes: &[u8], budget: &mut Budget, depth: usize) -> Result<Node, FilterError> {
    budget.enter(depth)?;
    let mut draft = Draft::default();
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.field().map_err(FilterError::Wire)? {
        let text = || field.text().map(Text::from).map_err(FilterError::Wire);
        match field.number {
            1 => draft.op = text()?,
            2 => draft.key = text()?,
            3 => draft.cmp = text()?,
            4 => draft.val = text()?,
            5 => {
                budget.take_value()?;
                draft.vals.push(text()?);
            }
            6 => {
                let bytes = field.bytes().map_err(FilterError::Wire)?;
                draft.nodes.push(read_node(bytes, budget, depth + 1)?);
            }
            _ => {}
        }
    }
    draft.finish()
}

/// Reads a node from an object.
struct NodeSeed<'b> {
    budget: &'b mut Budget,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for NodeSeed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a filter: an object with op and nodes, or with key, cmp, and val or vals")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let Self { budget, depth } = self;
        if let Err(error) = budget.enter(depth) {
            return Err(budget.refuse(error));
        }
        let mut draft = Draft::default();
        while let Some(Str(key)) = map.next_key()? {
            let field = match &*key {
                "op" => &mut draft.op,
                "key" => &mut draft.key,
                "cmp" => &mut draft.cmp,
                "val" => &mut draft.val,
                "vals" => {
                    draft.vals = map.next_value_seed(Values(budget))?;
                    continue;
                }
                "nodes" => {
                    draft.nodes = map.next_value_seed(Nodes(budget, depth + 1))?;
                    continue;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *field = map.next_value::<Str<'de>>()?.0;
        }
        draft.finish().map_err(|error| budget.refuse(error))
    }
}

/// Reads the list of a comparison.
struct Values<'b>(&'b mut Budget);

impl<'de> DeserializeSeed<'de> for Values<'_> {
    type Value = Vec<Text<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Values<'_> {
    type Value = Vec<Text<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of strings")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Str(value)) = list.next_element()? {
            self.0.take_value().map_err(|error| self.0.refuse(error))?;
            values.push(value);
        }
        Ok(values)
    }
}

/// Reads the nodes below one, and how deep they are.
struct Nodes<'b>(&'b mut Budget, usize);

impl<'de> DeserializeSeed<'de> for Nodes<'_> {
    type Value = Vec<Node>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Nodes<'_> {
    type Value = Vec<Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of filters")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let Self(budget, depth) = self;
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element_seed(NodeSeed {
            budget: &mut *budget,
            depth,
        })? {
            nodes.push(node);
        }
        Ok(nodes)
    }
}
