// Package client pins what generated clients import; ci/peers vendors it, and the peers suite puts the client here.
package client

import (
	_ "github.com/oapi-codegen/runtime"
	_ "github.com/oapi-codegen/runtime/types"
	_ "go.yaml.in/yaml/v3"
)
