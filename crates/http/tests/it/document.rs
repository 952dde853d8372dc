//! The OpenAPI document as tests read it.

use serde_json::Value;

use crate::harness::Api;

/// The methods that an item of the document can have.
const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

/// The document.
pub(crate) struct Document(Value);

/// One route with its method.
pub(crate) struct Operation<'a> {
    pub(crate) method: String,
    pub(crate) path: &'a str,
    pub(crate) says: &'a Value,
}

impl Document {
    pub(crate) async fn of(api: &Api) -> Self {
        let answer = api.get("/api/v3/docs/openapi.json").await;
        assert_eq!(answer.status(), 200);
        Self(answer.json())
    }

    pub(crate) fn says(&self) -> &Value {
        &self.0
    }

    pub(crate) fn operations(&self) -> Vec<Operation<'_>> {
        let paths = self.0["paths"].as_object().expect("it has paths");
        let of_path = |(path, item): (&'_ String, &'_ Value)| {
            let known = METHODS.iter().filter(|method| item.get(**method).is_some());
            known.map(|method| (method.to_uppercase(), path.clone(), *method)).collect::<Vec<_>>()
        };
        let all: Vec<_> = paths.iter().flat_map(of_path).collect();
        all.into_iter()
            .map(|(upper, path, method)| {
                let (path, item) = paths.get_key_value(&path).expect("it was listed");
                Operation { method: upper, path, says: &item[method] }
            })
            .collect()
    }

    /// Follows a `$ref`.
    pub(crate) fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(pointer) => {
                self.0.pointer(pointer.trim_start_matches('#')).unwrap_or_else(|| panic!("no {pointer}"))
            }
            None => value,
        }
    }
}

impl Operation<'_> {
    /// What it is called in messages.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// Its path with the examples of its parameters.
    pub(crate) fn example_path(&self) -> String {
        let parameters = self.says["parameters"].as_array().into_iter().flatten();
        parameters.filter(|parameter| parameter["in"] == "path").fold(
            self.path.to_owned(),
            |path, parameter| {
                let name = parameter["name"].as_str().expect("a name");
                let example =
                    parameter["example"].as_str().or_else(|| parameter["schema"]["example"].as_str());
                let example = example.unwrap_or_else(|| panic!("{path}: `{name}` has no example"));
                path.replace(&format!("{{{name}}}"), example)
            },
        )
    }

    /// The credentials that open it, with the scopes that each needs; none for a public route.
    pub(crate) fn security(&self) -> Vec<(String, Vec<String>)> {
        let requirements =
            self.says["security"].as_array().unwrap_or_else(|| panic!("{}: no security", self.name()));
        let scheme = |requirement: &Value| {
            let (name, scopes) = requirement.as_object()?.iter().next()?;
            let scopes =
                scopes.as_array()?.iter().filter_map(|scope| scope.as_str().map(str::to_owned)).collect();
            Some((name.clone(), scopes))
        };
        requirements.iter().filter_map(scheme).collect()
    }
}
